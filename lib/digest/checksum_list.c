/* SPDX-License-Identifier: MIT */
#include "digest/checksum_list.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

enum separator_form { FORM_UNKNOWN, FORM_GNU, FORM_REVERSED };

struct checksum_form {
    enum digest_algorithm algorithm;
    enum separator_form separator;
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static bool is_hex(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') ||
           (byte >= 'A' && byte <= 'F');
}

static size_t count_hex(const char *text, size_t length)
{
    size_t count = 0;
    while (count < length && is_hex(text[count]))
        count++;
    return count;
}

static enum digest_algorithm algorithm_of_digits(size_t digits)
{
    static const enum digest_algorithm known[] = {DIGEST_MD5, DIGEST_SHA1, DIGEST_SHA256,
                                                  DIGEST_SHA512};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (digits == 2 * digest_size(known[i]))
            return known[i];
    return DIGEST_NONE;
}

static enum line_result malformed(struct list_line *line, const char *problem)
{
    line->problem = problem;
    return LINE_MALFORMED;
}

/* ---- "SHA256 (NAME) = HEX" ---------------------------------------------------------------------
 */

/* The length of the tag before " (" or "(", 0 when the line does not begin with one. */
static size_t tag_length(const char *text, size_t length)
{
    size_t tag = 0;
    while (tag < length && text[tag] != ' ' && text[tag] != '(')
        tag++;
    if (tag == 0 || tag == length || tag > 16)
        return 0;
    size_t open = tag + (text[tag] == ' ');
    return open < length && text[open] == '(' ? tag : 0;
}

/* *known: whether the tag is one of coreutils' own, supported or not. */
static enum digest_algorithm algorithm_of_tag(const char *tag, size_t length, bool *known)
{
    static const struct {
        const char *tag;
        enum digest_algorithm algorithm;
    } tags[] = {
        {"MD5", DIGEST_MD5},       {"SHA1", DIGEST_SHA1},   {"SHA256", DIGEST_SHA256},
        {"SHA512", DIGEST_SHA512}, {"SHA224", DIGEST_NONE}, {"SHA384", DIGEST_NONE},
        {"BLAKE2b", DIGEST_NONE},  {"SM3", DIGEST_NONE},    {"BLAKE2b-256", DIGEST_NONE},
    };
    *known = false;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (strlen(tags[i].tag) != length || memcmp(tags[i].tag, tag, length) != 0)
            continue;
        *known = true;
        return tags[i].algorithm;
    }
    return DIGEST_NONE;
}

static enum line_result parse_tagged(struct list_line *line, const char *text, size_t length,
                                     size_t tag)
{
    bool known;
    enum digest_algorithm algorithm = algorithm_of_tag(text, tag, &known);
    size_t open = tag + (text[tag] == ' ') + 1;
    const char *close = memrchr(text + open, ')', length - open);
    if (close == NULL)
        return malformed(line, "the name has no closing parenthesis");
    if (!known)
        return malformed(line, "the tag names no known algorithm");
    line->problem = "the algorithm is not supported";
    if (algorithm == DIGEST_NONE)
        return LINE_UNSUPPORTED;
    size_t at = (size_t)(close - text) + 1;
    while (at < length && is_blank(text[at]))
        at++;
    if (at == length || text[at] != '=')
        return malformed(line, "there is no \"=\" behind the name");
    at++;
    while (at < length && is_blank(text[at]))
        at++;
    if (!digest_from_hex(algorithm, text + at, length - at, &line->digest))
        return malformed(line, "the digest is not what the tag says");
    line->name = text + open;
    line->name_length = (size_t)(close - text) - open;
    return LINE_ENTRY;
}

/* ---- "HEX  NAME" and "HEX NAME" ----------------------------------------------------------------
 */

static enum line_result parse_untagged(struct checksum_form *form, struct list_line *line,
                                       const char *text, size_t length)
{
    size_t digits = count_hex(text, length);
    enum digest_algorithm algorithm =
        form->algorithm != DIGEST_NONE ? form->algorithm : algorithm_of_digits(digits);
    if (!digest_from_hex(algorithm, text, digits, &line->digest))
        return malformed(line, "no digest of the right length at its beginning");
    if (digits == length || !is_blank(text[digits]))
        return malformed(line, "no blank and no name behind the digest");
    size_t at = digits + 1, left = length - at;
    if (left == 0)
        return malformed(line, "no name behind the digest");
    bool reversed = left == 1 || (text[at] != ' ' && text[at] != '*');
    enum separator_form separator = reversed ? FORM_REVERSED : FORM_GNU;
    if (form->separator != FORM_UNKNOWN && form->separator != separator)
        return malformed(line, "one blank before the name where other lines have two, or the other "
                               "way round");
    form->separator = separator;
    at += !reversed;
    line->name = text + at;
    line->name_length = length - at;
    return LINE_ENTRY;
}

static enum line_result parse_line(void *context, struct list_line *line)
{
    const char *text = line->text;
    size_t length = line->length;
    if (length > 0 && text[length - 1] == '\r')
        length--;
    if (length == 0)
        return LINE_IGNORED;
    while (length > 0 && is_blank(*text)) {
        text++;
        length--;
    }
    if (length > 0 && *text == '\\') {
        line->escaped = true;
        text++;
        length--;
    }
    size_t tag = tag_length(text, length);
    return tag > 0 ? parse_tagged(line, text, length, tag)
                   : parse_untagged(context, line, text, length);
}

/* A file with nothing but a digest. */
static bool is_bare(const char *text, size_t length, enum digest_algorithm algorithm,
                    struct digest *out)
{
    if (length > 0 && text[length - 1] == '\n')
        length--;
    if (length > 0 && text[length - 1] == '\r')
        length--;
    if (algorithm == DIGEST_NONE)
        algorithm = algorithm_of_digits(length);
    return digest_from_hex(algorithm, text, length, out);
}

int checksum_list_parse(const char *text, size_t length, const char *path,
                        enum digest_algorithm algorithm, const char *implied_name,
                        struct arena *arena, struct digest_list *out, struct unshard_error *error)
{
    struct checksum_form form = {.algorithm = algorithm};
    struct listed_digest entry = {.line = 1};
    if (implied_name == NULL || !is_bare(text, length, algorithm, &entry.digest))
        return digest_list_parse_lines(text, length, path, arena, parse_line, &form, out, error);
    if (digest_list_add(out, arena, path, implied_name, strlen(implied_name), &entry) != 0)
        return error_no_memory(error);
    return 0;
}
