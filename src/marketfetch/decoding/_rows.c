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
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#ifdef _WIN32
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

#ifdef __MINGW32__
#define strtod __mingw_strtod /* part of the library, so known; that of Wine misreads -1e-3240020000 */
#endif

enum { SYMBOL = -3, TIME = -2, SKIPPED = -1 };

/* Up to here a power of ten is exact, and so is a mantissa below 2^53: their quotient is rounded once. */
static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline int is_digit(char c) { return (unsigned char)(c - '0') < 10; }

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define READS_EIGHT
#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

static const uint64_t WHOLE_POWERS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

static inline uint64_t load_eight(const char *at)
{
    uint64_t eight;

    memcpy(&eight, at, 8);
    return eight;
}

/* The number that eight digits are. A NUL counts as the digit 0. */
static inline uint64_t joined(uint64_t eight)
{
    /* Neighbours are joined: to four numbers of two digits, two of four, one of eight. */
    eight = (eight & EACH_BYTE(0x0f)) * (1 + (10 << 8)) >> 8;
    eight = (eight & UINT64_C(0x00ff00ff00ff00ff)) * (1 + (100 << 16)) >> 16;
    return (eight & UINT64_C(0x0000ffff0000ffff)) * (1 + (UINT64_C(10000) << 32)) >> 32;
}

/* Append `count` digits, at least one, to a number; it wraps around after 19. Reads eight bytes for one to eight digits. */
static inline uint64_t append_known(uint64_t sum, const char *at, ptrdiff_t count)
{
    for (; count > 8; count -= 8, at += 8)
        sum = sum * 100000000 + joined(load_eight(at));
    /* What follows the digits is shifted out; NULs come before them. */
    return sum * WHOLE_POWERS[count] + joined(load_eight(at) << (-8 * count & 63));
}
#endif

/* Append digits to `*sum`, eight at once as long as there are so many; it wraps around after 19. Returns what follows. */
static inline const char *append_digits(const char *at, const char *end, uint64_t *sum)
{
#ifdef READS_EIGHT
    while (end - at >= 8) {
        const uint64_t eight = load_eight(at), value = eight ^ EACH_BYTE('0'); /* digits become 0 to 9 */

        if ((value | (value + EACH_BYTE(0x76))) & EACH_BYTE(0x80))
            break;
        *sum = *sum * 100000000 + joined(eight);
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

/* A mantissa of so many digits, divided by 10^places and rounded once. Returns 0 if it can be computed only by `strtod`. */
static inline int divided(uint64_t mantissa, ptrdiff_t digits, ptrdiff_t places, double *quotient)
{
    /* Where doubles are computed with more bits than they have (32-bit x86), a quotient is rounded twice. */
    if (FLT_EVAL_METHOD != 0 || digits > 19)
        return 0;
    if (mantissa < (UINT64_C(1) << 53)) {
        *quotient = (double)(int64_t)mantissa / POWERS[places];
        return 1;
    }
#ifdef __SIZEOF_INT128__
    if (places <= 18) {
        *quotient = long_quotient(mantissa, places);
        return 1;
    }
#endif
    return 0;
}

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
    if (!has_exponent && divided(mantissa, digits, places, value)) {
        *value = negative ? -*value : *value;
        return at;
    }
    *value = strtod(start, NULL);
    return isfinite(*value) ? at : NULL;
}

enum { LONGEST_MOMENT = 15 };

/* An integer of at most so many digits. Returns what follows, or NULL. */
static inline const char *moment(const char *at, int64_t *value)
{
    const char *start = at;
    int64_t sum = 0;

    while (is_digit(*at) && at - start <= LONGEST_MOMENT)
        sum = sum * 10 + (*at++ - '0');
    if (at == start || at - start > LONGEST_MOMENT || (*start == '0' && at - start > 1))
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

/* One row of a page. Returns what follows its closing bracket, or NULL. */
static inline const char *json_row(const char *at, const char *end, int width, const int *lines, int64_t stride, int64_t *time,
                                   double *values)
{
    if (*at != '[')
        return NULL;
    at++;
    for (int field = 0; field < width; field++) {
        const int line = lines[field];
        double value = 0.0;
        int whole = 0, quoted;

        at = skip_space(at);
        quoted = *at == '"';
        at += quoted;
        at = line == TIME ? moment(at, time) : number(at, end, &value, &whole);
        if (at == NULL || (quoted && *at != '"'))
            return NULL;
        at = skip_space(at + quoted);
        if (*at != (field + 1 < width ? ',' : ']'))
            return NULL;
        at++;
        if (line >= 0) /* a whole -0 without quotes is an integer, which has no sign */
            values[line * stride] = whole && !quoted ? value + 0.0 : value;
    }
    return at;
}

/* A time of exactly so many digits, at most 19. Returns what follows, or NULL. */
static inline const char *stamp(const char *at, const char *end, int digits, int64_t *value)
{
    uint64_t sum = 0;
    const char *next = append_digits(at, end, &sum);

    *value = (int64_t)sum;
    return next - at == digits && sum <= INT64_MAX ? next : NULL;
}

/* A field that is not read has any text without commas, quotes and control characters. */
static inline int ends_field(char at)
{
    const unsigned char c = (unsigned char)at;

    return c <= ',' && (c < ' ' || c == ',' || c == '"');
}

static inline const char *skip_field(const char *at)
{
    while (!ends_field(*at))
        at++;
    return at;
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

#ifdef READS_EIGHT
/* A mark is a character that is no digit. `bits` has a bit for each of the marks in WINDOW bytes from `base` on. */
struct marks {
    const char *base, *end;
    uint64_t bits;
};

/* LOOK_AHEAD is how far the digits before a mark, and after it, may be read together with bytes that are none. */
enum { WINDOW = 64, LOOK_AHEAD = 24 };

static inline uint64_t marks_in(const char *window)
{
    uint64_t marks = 0;

#ifdef __SSE2__
    for (int at = 0; at < WINDOW; at += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(window + at));
        const __m128i moved = _mm_add_epi8(bytes, _mm_set1_epi8(80)); /* digits become -128 to -119 */
        const int found = _mm_movemask_epi8(_mm_cmpgt_epi8(moved, _mm_set1_epi8(-119)));
        marks |= (uint64_t)(unsigned)found << at;
    }
#else
    for (int at = 0; at < WINDOW; at += 8) {
        const uint64_t value = load_eight(window + at) ^ EACH_BYTE('0'); /* digits become 0 to 9 */
        const uint64_t found = (value | ((value & EACH_BYTE(0x7f)) + EACH_BYTE(0x76))) & EACH_BYTE(0x80);
        marks |= found * UINT64_C(0x0002040810204081) >> 56 << at; /* the highest bits of the bytes, side by side */
    }
#endif
    return marks;
}

/* Pass over the next mark. Returns it, or NULL near the end of the text. */
static inline const char *next_mark(struct marks *marks)
{
    while (marks->bits == 0) {
        if (marks->end - marks->base < 2 * WINDOW + LOOK_AHEAD)
            return NULL;
        marks->base += WINDOW;
        marks->bits = marks_in(marks->base);
    }
    const char *mark = marks->base + __builtin_ctzll(marks->bits);
    marks->bits &= marks->bits - 1;
    return mark;
}

/* A number without an exponent. Returns the mark that follows, or NULL. */
static inline const char *marked_number(struct marks *marks, const char *at, double *value)
{
    const char *mark = next_mark(marks);
    const int negative = *at == '-';

    if (negative && mark != NULL) {
        at++;
        mark = next_mark(marks);
    }
    if (mark == NULL)
        return NULL;
    const ptrdiff_t whole = mark - at;
    if (whole < 1 || whole > 16 || (whole > 1 && *at == '0'))
        return NULL;
    uint64_t mantissa = append_known(0, at, whole);
    ptrdiff_t places = 0;
    if (*mark == '.') {
        const char *point = mark + 1;
        mark = next_mark(marks);
        if (mark == NULL)
            return NULL;
        places = mark - point;
        if (places < 1 || places > 16)
            return NULL;
        mantissa = append_known(mantissa, point, places);
    }
    double quotient;
    if (!divided(mantissa, whole + places, places, &quotient))
        return NULL;
    *value = negative ? -quotient : quotient;
    return mark;
}
#endif

/* One line as by `csv_line`, in less time: first the marks are found, so that no field waits for the one before it.
 *
 * Returns the beginning of the next line, or NULL for lines that `csv_line` has to read: near the end of the text,
 * with an exponent, with more than 16 digits on one side of the point, or broken.
 */
static inline const char *plain_line(const char *at, const char *end, int width, const int *lines, int digits, const char *symbol,
                                     int64_t stride, int64_t *time, double *values)
{
#ifdef READS_EIGHT
    if (end - at < WINDOW + LOOK_AHEAD)
        return NULL;
    struct marks marks = {at, end, marks_in(at)};
    for (int field = 0;; field++) {
        const int line = lines[field];
        const char *mark;

        if (line >= 0) {
            mark = marked_number(&marks, at, &values[line * stride]);
        } else if (line == TIME) {
            mark = next_mark(&marks);
            if (mark == NULL || mark - at != digits)
                return NULL;
            const uint64_t sum = append_known(0, at, digits);
            if (sum > INT64_MAX)
                return NULL;
            *time = (int64_t)sum;
        } else {
            const char *next = line == SYMBOL ? same_text(at, symbol) : at;
            do
                mark = next_mark(&marks);
            while (mark != NULL && (mark < next || !ends_field(*mark)));
            if (next == NULL || (line == SYMBOL && mark != next))
                return NULL;
        }
        if (mark == NULL)
            return NULL;
        at = mark + 1;
        if (field + 1 == width) {
            if (*mark == '\r')
                mark = at++;
            return *mark == '\n' ? at : NULL;
        }
        if (*mark != ',')
            return NULL;
    }
#else
    (void)at, (void)end, (void)width, (void)lines, (void)digits, (void)symbol, (void)stride, (void)time, (void)values;
    return NULL;
#endif
}

/* One row as by `json_row`, in less time: first the marks are found, so that no field waits for the one before it.
 *
 * Returns what follows the row, or NULL for rows that `json_row` has to read: near the end of the text, with space,
 * with an exponent, with more than 16 digits on one side of the point, with a minus that is not quoted, or broken.
 */
static inline const char *plain_row(const char *at, const char *end, int width, const int *lines, int64_t stride, int64_t *time,
                                    double *values)
{
#ifdef READS_EIGHT
    if (end - at < WINDOW + LOOK_AHEAD)
        return NULL;
    struct marks marks = {at, end, marks_in(at)};
    const char *mark = next_mark(&marks);

    if (*at != '[')
        return NULL;
    for (int field = 0; field < width; field++) {
        const int line = lines[field];
        double unused;

        at = mark + 1;
        const int quoted = *at == '"';
        if (quoted && next_mark(&marks) != at++)
            return NULL;
        if (!quoted && *at == '-')
            return NULL;
        if (line == TIME) {
            mark = next_mark(&marks);
            if (mark == NULL || mark == at || mark - at > LONGEST_MOMENT || (*at == '0' && mark - at > 1))
                return NULL;
            *time = (int64_t)append_known(0, at, mark - at);
        } else {
            mark = marked_number(&marks, at, line >= 0 ? &values[line * stride] : &unused);
        }
        if (mark == NULL)
            return NULL;
        if (quoted) {
            if (*mark != '"' || next_mark(&marks) != mark + 1)
                return NULL;
            mark++;
        }
        if (*mark != (field + 1 < width ? ',' : ']'))
            return NULL;
    }
    return mark + 1;
#else
    (void)at, (void)end, (void)width, (void)lines, (void)stride, (void)time, (void)values;
    return NULL;
#endif
}

/* Fill `times` with `rows` integers, and the lines of `values`, each `rows` long, with the other fields.
 *
 * `lines` says for each of a row's `width` fields which line it goes to, or TIME, or SKIPPED. Returns 0, or -1
 * for anything but exactly so many rows of so many numbers, quoted or not.
 */
PUBLIC int marketfetch_rows(const char *text, size_t size, int64_t rows, int width, const int *lines,
                            int64_t *times, double *values)
{
    const char *at = skip_space(text), *end = text + size;

    if (strtod("1.5", NULL) != 1.5)
        return -1; /* the host has set a locale with another decimal point */
    if (*at != '[')
        return -1;
    at++;
    for (int64_t row = 0; row < rows; row++) {
        at = skip_space(at);
        const char *next = plain_row(at, end, width, lines, rows, &times[row], values + row);
        if (next == NULL)
            next = json_row(at, end, width, lines, rows, &times[row], values + row);
        if (next == NULL)
            return -1;
        at = skip_space(next);
        if (*at != (row + 1 < rows ? ',' : ']'))
            return -1;
        at++;
    }
    return skip_space(at) == end ? 0 : -1;
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
        next = plain_line(at, text + size, width, lines, digits, symbol, rows, &times[row], values + row);
        if (next == NULL)
            next = csv_line(at, text + size, width, lines, digits, symbol, rows, &times[row], values + row);
        if (next == NULL)
            break;
        at = next;
        row++;
    }
    *from = (size_t)(at - text);
    return row;
}
