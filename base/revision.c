/* Alone in its file: the linker takes it from the library only where a program has brought none. */
#include "base/revision.h"

const char baton_revision[] = "unknown";
