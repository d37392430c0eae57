/* Pages of rows, `[[1780272000000,"1.5",...],...]`, and lines of CSV straight from text to columns.
 *
 * Plain C without Python's headers, called through ctypes: one build serves every Python, and the interpreter
 * lock is free meanwhile. The text ends with a NUL, as the bytes of Python do; a pointer moves on only over a
 * character that was expected, which a NUL never is: so nothing is read beyond it. Whatever is not exactly
 * such a page or line is left to the careful decoder in Python.
 */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

enum { SYMBOL = -3, TIME = -2, SKIPPED = -1 };

/* Up to here a power of ten is exact, and so is a mantissa below 2^53: their quotient is rounded once. */
static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline int is_digit(char c) { return (unsigned char)(c - '0') < 10; }

/* Append digits to `*sum`, eight at once as long as there are so many; it wraps around after 19. Returns what follows. */
static inline const char *append_digits(const char *at, const char *end, uint64_t *sum)
{
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (end - at >= 8) {
        uint64_t eight;

        memcpy(&eight, at, 8);
        eight ^= UINT64_C(0x3030303030303030); /* digits become 0 to 9 */
        if ((eight | (eight + UINT64_C(0x7676767676767676))) & UINT64_C(0x8080808080808080))
            break;
        /* Neighbours are joined: to four numbers of two digits, two of four, one of eight. */
        eight = (eight * 10 + (eight >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
        eight = (eight * 100 + (eight >> 16)) & UINT64_C(0x0000ffff0000ffff);
        eight = (eight * 10000 + (eight >> 32)) & UINT64_C(0x00000000ffffffff);
        *sum = *sum * 100000000 + eight;
        at += 8;
    }
#else
    (void)end;
#endif
    while (is_digit(*at))
        *sum = *sum * 10 + (uint64_t)(*at++ - '0');
    return at;
}

static inline const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

/* A mantissa from 2^53 on, divided by 10^places and rounded once, half to even; places is at most 18. */
#ifdef __SIZEOF_INT128__
__attribute__((noinline)) static double long_quotient(uint64_t mantissa, ptrdiff_t places)
{
    const uint64_t power = (uint64_t)POWERS[places];
    unsigned __int128 wide = (unsigned __int128)mantissa << 64, quotient = wide / power;
    double scale = 0x1p-64;

    /* Of 57 bits or more the last one only says whether anything follows: it is never the one that is rounded. */
    quotient |= quotient * power != wide;
    while (quotient >> 64) {
        quotient = quotient >> 1 | (quotient & 1);
        scale *= 2;
    }
    return (double)(uint64_t)quotient * scale;
}
#endif

/* One number by JSON's grammar, whole if it has neither fraction nor exponent. Returns what follows, or NULL. */
static inline const char *number(const char *at, const char *end, double *value, int *whole)
{
    const char *start = at;
    int negative = *at == '-', has_exponent = 0;
    uint64_t mantissa = 0;
    ptrdiff_t digits, places = 0;

    at += negative;
    const char *first = at;
    while (is_digit(*at))
        mantissa = mantissa * 10 + (uint64_t)(*at++ - '0');
    digits = at - first;
    if (digits == 0 || (digits > 1 && *first == '0'))
        return NULL;
    if (*at == '.') {
        const char *point = ++at;
        at = append_digits(at, end, &mantissa);
        places = at - point;
        if (places == 0)
            return NULL;
        digits += places;
    }
    if (*at == 'e' || *at == 'E') {
        has_exponent = 1;
        at++;
        at += *at == '+' || *at == '-';
        if (!is_digit(*at))
            return NULL;
        while (is_digit(*at))
            at++;
    }
    *whole = places == 0 && !has_exponent;
    /* Where doubles are computed with more bits than they have (32-bit x86), a quotient is rounded twice. */
    if (FLT_EVAL_METHOD == 0 && !has_exponent && digits <= 19 && mantissa < (UINT64_C(1) << 53)) {
        double quotient = (double)mantissa / POWERS[places];
        *value = negative ? -quotient : quotient;
        return at;
    }
#ifdef __SIZEOF_INT128__
    if (FLT_EVAL_METHOD == 0 && !has_exponent && digits <= 19 && places <= 18) {
        double quotient = long_quotient(mantissa, places);
        *value = negative ? -quotient : quotient;
        return at;
    }
#endif
    *value = strtod(start, NULL);
    return isfinite(*value) ? at : NULL;
}

/* An integer of at most 15 digits. Returns what follows, or NULL. */
static inline const char *moment(const char *at, int64_t *value)
{
    const char *start = at;
    int64_t sum = 0;

    while (is_digit(*at) && at - start < 16)
        sum = sum * 10 + (*at++ - '0');
    if (at == start || at - start > 15 || (*start == '0' && at - start > 1))
        return NULL;
    *value = sum;
    return at;
}

/* How often a character occurs. A page of rows has one closing bracket more than rows, a CSV a line feed for each. */
PUBLIC int64_t marketfetch_count(const char *text, size_t size, char wanted)
{
    int64_t count = 0;
    size_t at = 0;

    for (; size - at >= 128; at += 128) {
        unsigned char part = 0; /* of one byte, so that many characters are compared at once */
        for (int next = 0; next < 128; next++)
            part += text[at + next] == wanted;
        count += part;
    }
    for (; at < size; at++)
        count += text[at] == wanted;
    return count;
}

/* Fill `times` with `rows` integers, and the lines of `values`, each `rows` long, with the other fields.
 *
 * `lines` says for each of a row's `width` fields which line it goes to, or TIME, or SKIPPED. Returns 0, or -1
 * for anything but exactly so many rows of so many numbers, quoted or not.
 */
PUBLIC int marketfetch_rows(const char *text, size_t size, int64_t rows, int width, const int *lines,
                            int64_t *times, double *values)
{
    const char *at = skip_space(text);

    if (strtod("1.5", NULL) != 1.5)
        return -1; /* the host has set a locale with another decimal point */
    if (*at != '[')
        return -1;
    at++;
    for (int64_t row = 0; row < rows; row++) {
        at = skip_space(at);
        if (*at != '[')
            return -1;
        at++;
        for (int field = 0; field < width; field++) {
            const int line = lines[field];
            double value = 0.0;
            int whole = 0, quoted;

            at = skip_space(at);
            quoted = *at == '"';
            at += quoted;
            at = line == TIME ? moment(at, &times[row]) : number(at, text + size, &value, &whole);
            if (at == NULL || (quoted && *at != '"'))
                return -1;
            at = skip_space(at + quoted);
            if (*at != (field + 1 < width ? ',' : ']'))
                return -1;
            at++;
            if (line >= 0) /* a whole -0 without quotes is an integer, which has no sign */
                values[line * rows + row] = whole && !quoted ? value + 0.0 : value;
        }
        at = skip_space(at);
        if (*at != (row + 1 < rows ? ',' : ']'))
            return -1;
        at++;
    }
    return skip_space(at) == text + size ? 0 : -1;
}

/* A time of exactly so many digits, at most 19. Returns what follows, or NULL. */
static inline const char *stamp(const char *at, const char *end, int digits, int64_t *value)
{
    uint64_t sum = 0;
    const char *next = append_digits(at, end, &sum);

    *value = (int64_t)sum;
    return next - at == digits && sum <= INT64_MAX ? next : NULL;
}

/* A field that is not read, of any text without quotes and control characters. Returns what follows. */
static inline const char *skip_field(const char *at)
{
    for (;; at++) {
        const unsigned char c = (unsigned char)*at;
        if (c <= ',' && (c < ' ' || c == ',' || c == '"'))
            return at;
    }
}

/* A field that is the symbol. Returns what follows, or NULL. */
static inline const char *same_text(const char *at, const char *symbol)
{
    while (*symbol != '\0') {
        if (*at++ != *symbol++)
            return NULL;
    }
    return at;
}

/* One line. Returns the beginning of the next line, or NULL. */
static inline const char *csv_line(const char *at, const char *end, int width, const int *lines, int digits, const char *symbol,
                                   int64_t stride, int64_t *time, double *values)
{
    for (int field = 0; field < width; field++) {
        const int line = lines[field];
        int whole;

        if (line >= 0)
            at = number(at, end, &values[line * stride], &whole);
        else if (line == TIME)
            at = stamp(at, end, digits, time);
        else
            at = line == SYMBOL ? same_text(at, symbol) : skip_field(at);
        if (at == NULL)
            return NULL;
        if (field + 1 == width)
            break;
        if (*at++ != ',')
            return NULL;
    }
    at += *at == '\r';
    return *at == '\n' ? at + 1 : NULL;
}

/* Read lines of CSV from `*from` on, each of which ends with a line feed, as does the text.
 *
 * `times` and the lines of `values` have room for `rows` rows and hold `row` already. Blank lines are passed
 * over. Returns the number of rows held in the end; `*from` is then the size of the text, or the beginning of
 * the first line that is not exactly so many unquoted fields: a time of `digits` digits, numbers, the symbol.
 */
PUBLIC int64_t marketfetch_csv(const char *text, size_t size, size_t *from, int width, const int *lines,
                               int digits, const char *symbol, int64_t rows, int64_t row, int64_t *times,
                               double *values)
{
    const char *at = text + *from;

    if (strtod("1.5", NULL) != 1.5)
        return row; /* the host has set a locale with another decimal point */
    while (at < text + size && row < rows) {
        const char *next = at + (*at == '\r');

        if (*next == '\n') {
            at = next + 1;
            continue;
        }
        next = csv_line(at, text + size, width, lines, digits, symbol, rows, &times[row], values + row);
        if (next == NULL)
            break;
        at = next;
        row++;
    }
    *from = (size_t)(at - text);
    return row;
}
