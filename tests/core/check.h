/* check.h: a condition that holds in C tests and fuzz targets, or they abort and say where. */
#ifndef FTN_CHECK_H
#define FTN_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

#endif
