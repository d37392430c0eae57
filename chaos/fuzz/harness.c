/* Tries `_rows.c` with page after page of almost rows and CSV, under the sanitizers of the compiler.
 *
 * Arguments: how many inputs, a seed, files to begin with. Every text lies at the end of a block of exactly its
 * size, and so does every result: one byte too far ends the program with a report. New inputs are kept where
 * they lead to places of the code that none has led to before (-fsanitize-coverage=trace-pc); a compiler without
 * that tries blindly. Prints: inputs, pages and lines read, places reached.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t marketfetch_count(const char *text, size_t size, char wanted);
int marketfetch_rows(const char *text, size_t size, int64_t rows, int width, const int *lines, int64_t *times,
                     double *values);
int64_t marketfetch_csv(const char *text, size_t size, size_t *from, int width, const int *lines, int digits,
                        const char *symbol, int64_t rows, int64_t row, int64_t *times, double *values);

enum { LONGEST = 600, FAMILY = 4096, PLACES = 1 << 12 };

static uint64_t state;
static unsigned char reached[PLACES];
static uintptr_t before;
static int fresh;

/* Called by the compiled decoder at every branch: pairs of places, as one after the other is what matters. */
__attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    unsigned char *place = &reached[((here >> 1) ^ (before * 31)) % PLACES];
    fresh |= !*place;
    *place = 1;
    before = here;
}

static uint32_t chance(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) * below >> 32);
}

struct input {
    size_t size;
    char text[LONGEST];
};

static const char *const ODD[] = {
    "\"", ",", "[", "]", "],[", "[[", "]]", "\"\"", "-", "-0", "0", ".", ".5", "e", "E", "e+", "1e400", "1e-400", "5e-324",
    "9007199254740993", "0.1000000000000000055511151231257827", "12345678901234567890", "999999999999999",
    "1234567890123456", "1.7976931348623159e308", "null", "NaN", "inf", "0x1p4", " ", "\t", "\n", "\v", "\x80",
    "\r\n", "\r", "1780272000000", "BTC-USDT", "BTC-USDT,1780272000000,1.5"};

static void splice(struct input *input, size_t at, size_t cut, const char *piece, size_t size)
{
    size_t rest = input->size - at - cut;
    if (at + size + rest > LONGEST)
        return;
    memmove(input->text + at + size, input->text + at + cut, rest);
    memcpy(input->text + at, piece, size);
    input->size = at + size + rest;
}

/* A number of up to 20 digits on each side of the point, at times with an exponent: most are hard to round. */
static size_t odd_number(char *piece)
{
    size_t size = 0;

    piece[size++] = (char)('1' + chance(9));
    for (uint32_t left = chance(20); left > 0; left--)
        piece[size++] = (char)('0' + chance(10));
    piece[size++] = '.';
    for (uint32_t left = 1 + chance(20); left > 0; left--)
        piece[size++] = (char)('0' + chance(10));
    return size + (chance(4) ? 0 : (size_t)sprintf(piece + size, "e%d", (int)chance(640) - 320));
}

static void mutate(struct input *input)
{
    size_t at = chance((uint32_t)input->size + 1), rest = input->size - at;
    size_t some = rest ? 1 + chance((uint32_t)(rest < 16 ? rest : 16)) : 0;
    const char *odd = ODD[chance(sizeof ODD / sizeof *ODD)];
    char number[64], copy[16], byte = (char)chance(256), digit = (char)('0' + chance(10));

    some = some > rest ? rest : some;
    memcpy(copy, input->text + at, some);
    switch (chance(8)) {
    case 0: splice(input, at, 0, odd, strlen(odd)); break;
    case 1: splice(input, at, some, odd, strlen(odd)); break;
    case 2: splice(input, at, rest > 0, &digit, 1); break;
    case 3: splice(input, at, rest > 0, &byte, 1); break;
    case 4: splice(input, at, some, "", 0); break;
    case 5: splice(input, chance((uint32_t)input->size + 1), 0, copy, some); break;
    case 6: splice(input, at, 0, number, odd_number(number)); break;
    default: splice(input, at, 0, &digit, 1);
    }
}

/* How many fields the first row has. */
static int width_of(const struct input *input)
{
    int commas = 0;
    for (size_t at = 0; at < input->size && input->text[at] != ']'; at++)
        commas += input->text[at] == ',';
    return commas + 1;
}

/* Hand a text over as `LineReader` does, which goes on after each line that was not read; returns how many were. */
static int try_lines(const struct input *input)
{
    static const char symbol[] = "BTC-USDT";
    const size_t size = input->size + 1; /* a last line without its end gets one */
    size_t at = 0;
    int64_t rows = 1, row = 0;
    int width = 1, used = 0, *lines;
    char *text = malloc(size + 1);

    memcpy(text, input->text, input->size);
    text[size - 1] = '\n';
    text[size] = 0;
    for (size_t each = 0; each < input->size; each++)
        rows += text[each] == '\n';
    for (size_t each = 0; text[each] != '\n'; each++)
        width += text[each] == ',';
    width = chance(8) ? width : 1 + (int)chance(14);
    lines = malloc((size_t)width * sizeof *lines);
    for (int each = 0; each < width; each++)
        lines[each] = chance(3) ? used++ : chance(4) ? -1 : -3;
    lines[chance(2) ? chance((uint32_t)width) : 0] = -2;
    int64_t *times = malloc((size_t)rows * sizeof *times);
    double *values = malloc((size_t)rows * (size_t)used * sizeof *values);
    while (at < size) {
        row = marketfetch_csv(text, size, &at, width, lines, chance(4) ? 13 : 1 + (int)chance(19), symbol, rows,
                              row, times, values);
        if (at < size)
            at = (size_t)((const char *)memchr(text + at, '\n', size - at) - text) + 1;
    }
    free(values);
    free(times);
    free(lines);
    free(text);
    return (int)row;
}

/* Hand a text over as `native.py` does; returns whether it was a page. */
static int try_one(const struct input *input, int width)
{
    int64_t rows;
    int ok = 0, *lines = malloc((size_t)width * sizeof *lines), used = 0;
    char *text = malloc(input->size + 1); /* the bytes of Python end with a NUL */

    memcpy(text, input->text, input->size);
    text[input->size] = 0;
    rows = marketfetch_count(text, input->size, ']') - 1;
    for (int at = 0; at < width; at++)
        lines[at] = chance(3) ? used++ : -1;
    lines[chance((uint32_t)width)] = -2; /* the line of the field that stood there stays unused */
    if (rows > 0 && rows <= (int64_t)input->size / (2 * width)) {
        int64_t *times = malloc((size_t)rows * sizeof *times);
        double *values = malloc((size_t)rows * (size_t)used * sizeof *values);
        ok = marketfetch_rows(text, input->size, rows, width, lines, times, values) == 0;
        free(times);
        free(values);
    }
    free(text);
    free(lines);
    return ok;
}

int main(int count, char **arguments)
{
    static struct input family[FAMILY];
    const long inputs = count > 2 ? atol(arguments[1]) : 0;
    long pages = 0, places = 0;
    uint32_t members = 0;

    state = count > 2 ? strtoull(arguments[2], NULL, 10) * 2654435769u + 1 : 1;
    for (int at = 3; at < count && members < FAMILY / 2; at++) {
        FILE *file = fopen(arguments[at], "rb");
        if (file == NULL)
            return 2;
        family[members].size = fread(family[members].text, 1, LONGEST, file);
        members++;
        fclose(file);
    }
    if (members == 0)
        members = 1; /* the empty text */
    for (long done = 0; done < inputs; done++) {
        struct input input = family[chance(members)];
        for (uint32_t left = done < members ? 0 : 1 + chance(4); left > 0; left--)
            mutate(&input);
        fresh = 0;
        before = 0;
        pages += try_one(&input, chance(8) ? width_of(&input) : 1 + (int)chance(14));
        pages += try_lines(&input);
        if (fresh && members < FAMILY)
            family[members++] = input;
    }
    for (int at = 0; at < PLACES; at++)
        places += reached[at];
    printf("%ld %ld %ld\n", inputs, pages, places);
    return 0;
}
