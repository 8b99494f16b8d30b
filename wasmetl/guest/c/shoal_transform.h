/*
 * shoal_transform.h: transforms in C, through Shoal's interface shoal_v1.
 *
 *     #include "shoal_transform.h"
 *
 *     SHOAL_TRANSFORM {
 *         static char buffer[65536];
 *         int32_t n;
 *         while ((n = shoal_read(buffer, sizeof buffer)) > 0)
 *             if (shoal_write(buffer, n) < 0)
 *                 return SHOAL_IO;
 *         return n;
 *     }
 *
 * Build it as a reactor (build.sh beside this file does):
 *
 *     clang --target=wasm32-wasi -mexec-model=reactor -O3 -msimd128 \
 *         -o identity.wasm identity.c
 *
 * An instance serves many objects, one after the other: what is left in static
 * variables is there for the next one. There are no files, sockets or sleep.
 */
#ifndef SHOAL_TRANSFORM_H
#define SHOAL_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions of the host return beside their results. */
enum {
    SHOAL_CANCELED = -1,
    SHOAL_IO = -2,
    SHOAL_BAD_POINTER = -3,
    SHOAL_NO_SUCH_KEY = -4,
    SHOAL_LIMIT = -5,
    SHOAL_INVALID = -6
};

enum { SHOAL_DEBUG, SHOAL_INFO, SHOAL_WARN, SHOAL_ERROR };

#define SHOAL_IMPORT(name) __attribute__((import_module("shoal_v1"), import_name(name)))

/* The next bytes of the object: how many, 0 at its end, or a code. Blocks. */
SHOAL_IMPORT("read") int32_t shoal_read(void *p, uint32_t len);

/* Writes all of len, or returns a code. Blocks while the reader is slow. */
SHOAL_IMPORT("write") int32_t shoal_write(const void *p, uint32_t len);

/*
 * Copies min(cap, length) bytes of a value, and returns its full length, or a code.
 * Keys: name bucket size content-type etag member arg:NAME meta:NAME.
 */
SHOAL_IMPORT("get") int32_t shoal_get(const char *key, uint32_t key_len, void *p, uint32_t cap);

/* Before the first byte of an output. Keys: content-type ext meta:NAME. */
SHOAL_IMPORT("set")
int32_t shoal_set(const char *key, uint32_t key_len, const char *value, uint32_t value_len);

/* Begins a further output, in an object of that name. */
SHOAL_IMPORT("emit") int32_t shoal_emit(const char *name, uint32_t len);

/* There is to be no output for this object. Before the first byte of any. */
SHOAL_IMPORT("drop") int32_t shoal_drop(void);

/* Adds a line to the object's log, whose end is kept with failures. */
SHOAL_IMPORT("log") void shoal_log(int32_t level, const char *text, uint32_t len);

/* Makes the object fail, with a text for users. Return after it. */
SHOAL_IMPORT("fail") void shoal_fail(int32_t code, const char *text, uint32_t len);

/* The function that is called for each object: returns 0, or less for an error. */
#define SHOAL_TRANSFORM                                                       \
    __attribute__((export_name("shoal_transform"))) int32_t shoal_transform(void)

/* As SHOAL_TRANSFORM, but called once before the first object. */
#define SHOAL_INIT __attribute__((export_name("shoal_init"))) int32_t shoal_init(void)

/* A value as a string of at most cap-1 bytes, cut if longer. Returns shoal_get's result. */
static inline int32_t shoal_get_string(const char *key, char *p, uint32_t cap)
{
    int32_t n = cap == 0 ? SHOAL_INVALID : shoal_get(key, (uint32_t)strlen(key), p, cap - 1);
    if (cap > 0)
        p[n < 0 ? 0 : (uint32_t)n < cap ? (uint32_t)n : cap - 1] = 0;
    return n;
}

/* Fails with a text, and returns what shoal_transform is to return then. */
static inline int32_t shoal_failed(const char *text)
{
    shoal_fail(1, text, (uint32_t)strlen(text));
    return SHOAL_INVALID;
}

#ifdef __cplusplus
}
#endif
#endif
