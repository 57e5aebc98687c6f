# Writes the git revision of SOURCE into OUT, a C file, when it differs from what is there: "0123456789ab", with
# "-dirty" behind it where files have been changed since, "unknown" where there is no git.
set(revision "unknown")
if(GIT)
    execute_process(COMMAND ${GIT} describe --always --dirty --abbrev=12 --exclude=* WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE rc)
    if(rc EQUAL 0 AND found)
        set(revision ${found})
    endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include \"base/revision.h\"\n\nconst char baton_revision[] = \"${revision}\";\n")
