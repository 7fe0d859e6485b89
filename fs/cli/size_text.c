/* SPDX-License-Identifier: MIT */
#include "fs/cli/size_text.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#define EDIT_LENGTH 63

static int parse_digits(const char **text, uint64_t *out)
{
    if (!isdigit((unsigned char)**text))
        return -EINVAL;
    uint64_t value = 0;
    for (; isdigit((unsigned char)**text); ++*text) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**text - '0'), &value))
            return -ERANGE;
    }
    *out = value;
    return 0;
}

int number_parse(const char *text, uint64_t *out)
{
    int result = parse_digits(&text, out);
    return result == 0 && *text ? -EINVAL : result;
}

int size_parse(const char *text, uint64_t *out)
{
    static const char letters[] = "KMGT";
    uint64_t value;
    int result = parse_digits(&text, &value);
    if (result < 0)
        return result;
    unsigned shift = 0;
    const char *letter = *text ? strchr(letters, toupper((unsigned char)*text)) : NULL;
    if (letter) {
        shift = 10 * (unsigned)(letter - letters + 1);
        text++;
        if (strcasecmp(text, "iB") == 0 || strcasecmp(text, "B") == 0)
            text = "";
    }
    if (*text)
        return -EINVAL;
    if (value > UINT64_MAX >> shift)
        return -ERANGE;
    *out = value << shift;
    return 0;
}

unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[EDIT_LENGTH + 1];
    size_t length_a = strnlen(a, EDIT_LENGTH), length_b = strnlen(b, EDIT_LENGTH);
    for (unsigned j = 0; j <= length_b; j++)
        row[j] = j;
    for (unsigned i = 1; i <= length_a; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= length_b; j++) {
            unsigned above = row[j];
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            unsigned least = above < row[j - 1] ? above + 1 : row[j - 1] + 1;
            row[j] = replace < least ? replace : least;
            diagonal = above;
        }
    }
    return row[length_b];
}
