# Flags that every target shares, and two helpers: baton_library(folder LINK ...) makes one static library of a
# floor's folder; baton_program(name SOURCES ... LINK ...) makes one executable in build/<preset>/bin.

add_compile_definitions(_GNU_SOURCE)
add_compile_options(-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
                    -Wno-unused-parameter -Wno-missing-field-initializers
                    -fno-strict-aliasing -ffp-contract=off -g)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # Texts for people are cut to fit by design.
    add_compile_options(-Wno-format-truncation)
endif()
# Asserts guard our own invariants and stay on in release builds.
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-O3" "-O2" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
if(BATON_WERROR)
    add_compile_options(-Werror)
endif()
if(BATON_SANITIZE)
    add_compile_options(-fsanitize=${BATON_SANITIZE} -fno-omit-frame-pointer)
    if(BATON_SANITIZE MATCHES "undefined")
        add_compile_options(-fno-sanitize-recover=undefined)
    endif()
    string(REPLACE "fuzzer-no-link" "" _link "${BATON_SANITIZE}")
    string(REGEX REPLACE ",$" "" _link "${_link}")
    add_link_options(-fsanitize=${_link})
    add_compile_options(-O1)
    add_compile_definitions(BATON_SANITIZED=1)
    if(BATON_SANITIZE MATCHES "thread")
        add_compile_definitions(BATON_TSAN=1)
    endif()
endif()

set(BATON_VERSION ${PROJECT_VERSION})
file(WRITE ${CMAKE_BINARY_DIR}/generated/baton_version.h.new "#define BATON_VERSION \"${BATON_VERSION}\"\n")
configure_file(${CMAKE_BINARY_DIR}/generated/baton_version.h.new
               ${CMAKE_BINARY_DIR}/generated/baton_version.h COPYONLY)

# The git revision is looked up by every build, not once when the folder was configured; only the programs have it, so
# that a commit does not link every test again.
find_package(Git QUIET)
set(BATON_REVISION_SOURCE ${CMAKE_BINARY_DIR}/generated/revision.c)
add_custom_target(baton_revision_source BYPRODUCTS ${BATON_REVISION_SOURCE}
    COMMAND ${CMAKE_COMMAND} -DGIT=${GIT_EXECUTABLE} -DSOURCE=${CMAKE_SOURCE_DIR} -DOUT=${BATON_REVISION_SOURCE}
            -P ${CMAKE_SOURCE_DIR}/cmake/revision.cmake)
add_library(baton_revision OBJECT ${BATON_REVISION_SOURCE})
target_include_directories(baton_revision PRIVATE ${CMAKE_SOURCE_DIR})
add_dependencies(baton_revision baton_revision_source)

function(baton_library folder)
    cmake_parse_arguments(A "" "" "LINK;SOURCES" ${ARGN})
    if(NOT A_SOURCES)
        file(GLOB A_SOURCES CONFIGURE_DEPENDS *.c)
    endif()
    string(REPLACE "-" "_" target "baton_${folder}")
    if(NOT A_SOURCES)
        message(STATUS "${folder}: no sources, no library")
        return()
    endif()
    add_library(${target} STATIC ${A_SOURCES})
    target_link_libraries(${target} PUBLIC ${A_LINK})
endfunction()

function(baton_program name)
    cmake_parse_arguments(A "" "" "LINK;SOURCES" ${ARGN})
    add_executable(${name} ${A_SOURCES} $<TARGET_OBJECTS:baton_revision>)
    target_link_libraries(${name} PRIVATE ${A_LINK})
endfunction()
