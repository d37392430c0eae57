/* The functions of `_rows.c` for `harness.c`, taken from a library as it is shipped, and a record of their answers.
 *
 * MARKETFETCH_LIBRARY names the library and MARKETFETCH_ANSWERS the record: eight bytes for each call, a hash of
 * everything that it returned. Two libraries that behave alike leave the same record, on whatever system.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

typedef int64_t count_function(const char *, size_t, char);
typedef int rows_function(const char *, size_t, int64_t, int, const int *, int64_t *, double *);
typedef int64_t csv_function(const char *, size_t, size_t *, int, const int *, int, const char *, int64_t, int64_t,
                             int64_t *, double *);

static const uint64_t EMPTY = UINT64_C(0xcbf29ce484222325);

static void *loaded(const char *name)
{
    const char *path = getenv("MARKETFETCH_LIBRARY");
#ifdef _WIN32
    HMODULE library = LoadLibraryA(path);
    void *function = library == NULL ? NULL : (void *)GetProcAddress(library, name);
#else
    void *library = dlopen(path, RTLD_NOW);
    void *function = library == NULL ? NULL : dlsym(library, name);
#endif
    if (function == NULL) {
        fprintf(stderr, "%s of %s cannot be loaded\n", name, path);
        exit(3);
    }
    return function;
}

/* FNV-1a of some bytes, after others. */
static uint64_t hashed(uint64_t before, const void *bytes, size_t size)
{
    for (size_t at = 0; at < size; at++)
        before = (before ^ ((const unsigned char *)bytes)[at]) * UINT64_C(0x100000001b3);
    return before;
}

static void record(uint64_t answer)
{
    static FILE *file;

    if (file == NULL)
        file = fopen(getenv("MARKETFETCH_ANSWERS"), "wb");
    if (file == NULL || fwrite(&answer, sizeof answer, 1, file) != 1)
        exit(4);
}

/* The times and numbers of the rows from `first` to before `last`. */
static uint64_t hashed_rows(uint64_t before, int width, const int *lines, int64_t stride, int64_t first,
                            int64_t last, const int64_t *times, const double *values)
{
    const size_t many = (size_t)(last - first);

    before = hashed(before, times + first, many * sizeof *times);
    for (int field = 0; field < width; field++)
        if (lines[field] >= 0)
            before = hashed(before, values + lines[field] * stride + first, many * sizeof *values);
    return before;
}

int64_t marketfetch_count(const char *text, size_t size, char wanted)
{
    static count_function *function;

    if (function == NULL)
        function = (count_function *)loaded("marketfetch_count");
    const int64_t count = function(text, size, wanted);
    record(hashed(EMPTY, &count, sizeof count));
    return count;
}

int marketfetch_rows(const char *text, size_t size, int64_t rows, int width, const int *lines, int64_t *times,
                     double *values)
{
    static rows_function *function;

    if (function == NULL)
        function = (rows_function *)loaded("marketfetch_rows");
    const int failed = function(text, size, rows, width, lines, times, values);
    const uint64_t answer = hashed(EMPTY, &failed, sizeof failed);
    record(failed ? answer : hashed_rows(answer, width, lines, rows, 0, rows, times, values));
    return failed;
}

int64_t marketfetch_csv(const char *text, size_t size, size_t *from, int width, const int *lines, int digits,
                        const char *symbol, int64_t rows, int64_t row, int64_t *times, double *values)
{
    static csv_function *function;

    if (function == NULL)
        function = (csv_function *)loaded("marketfetch_csv");
    const int64_t last = function(text, size, from, width, lines, digits, symbol, rows, row, times, values);
    const int64_t at = (int64_t)*from;
    const uint64_t answer = hashed(hashed(EMPTY, &last, sizeof last), &at, sizeof at);
    record(hashed_rows(answer, width, lines, rows, row, last, times, values));
    return last;
}
