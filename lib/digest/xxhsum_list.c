/* SPDX-License-Identifier: MIT */
#include "digest/xxhsum_list.h"

#include <string.h>

#define XXH3_PREFIX "XXH3_"
#define XXH3_PREFIX_LENGTH (sizeof XXH3_PREFIX - 1)

static enum line_result malformed(struct list_line *line, const char *problem)
{
    line->problem = problem;
    return LINE_MALFORMED;
}

static enum digest_algorithm algorithm_of_tag(const char *tag, size_t length, bool *little_endian)
{
    static const struct {
        const char *tag;
        enum digest_algorithm algorithm;
        bool little_endian;
    } tags[] = {
        {"XXH32", DIGEST_XXH32, false},       {"XXH64", DIGEST_XXH64, false},
        {"XXH128", DIGEST_XXH3_128, false},   {"XXH3", DIGEST_XXH3_64, false},
        {"XXH32_LE", DIGEST_XXH32, true},     {"XXH64_LE", DIGEST_XXH64, true},
        {"XXH128_LE", DIGEST_XXH3_128, true}, {"XXH3_LE", DIGEST_XXH3_64, true},
    };
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (strlen(tags[i].tag) == length && memcmp(tags[i].tag, tag, length) == 0) {
            *little_endian = tags[i].little_endian;
            return tags[i].algorithm;
        }
    }
    return DIGEST_NONE;
}

static void reverse_bytes(struct digest *digest)
{
    size_t size = digest_size(digest->algorithm);
    for (size_t i = 0; i < size / 2; i++) {
        uint8_t byte = digest->bytes[i];
        digest->bytes[i] = digest->bytes[size - 1 - i];
        digest->bytes[size - 1 - i] = byte;
    }
}

/* "TAG (NAME) = HEX", `space` is where the first space stands. */
static enum line_result parse_bsd(struct list_line *line, const char *text, size_t length,
                                  size_t space)
{
    static const char middle[] = ") = ";
    bool little_endian = false;
    enum digest_algorithm algorithm = algorithm_of_tag(text, space, &little_endian);
    if (algorithm == DIGEST_NONE)
        return malformed(line, "the tag names no known algorithm");
    const char *name = text + space + 2;
    const char *last_space = memrchr(text, ' ', length);
    if (last_space - name < 3 || memcmp(last_space - 3, middle, sizeof middle - 1) != 0)
        return malformed(line, "there is no \") = \" between name and digest");
    const char *hex = last_space + 1;
    if (!digest_from_hex(algorithm, hex, length - (size_t)(hex - text), &line->digest))
        return malformed(line, "the digest is not what the tag says");
    if (little_endian)
        reverse_bytes(&line->digest);
    line->name = name;
    line->name_length = (size_t)(last_space - 3 - name);
    return LINE_ENTRY;
}

static bool read_digest(const char *word, size_t length, struct digest *out)
{
    static const enum digest_algorithm known[] = {DIGEST_XXH32, DIGEST_XXH64, DIGEST_XXH3_128};
    if (length > XXH3_PREFIX_LENGTH && memcmp(word, XXH3_PREFIX, XXH3_PREFIX_LENGTH) == 0)
        return digest_from_hex(DIGEST_XXH3_64, word + XXH3_PREFIX_LENGTH,
                               length - XXH3_PREFIX_LENGTH, out);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (digest_from_hex(known[i], word, length, out))
            return true;
    return false;
}

static enum line_result parse_line(void *form, struct list_line *line)
{
    const char *text = line->text;
    size_t length = line->length;
    (void)form;
    if (*text == '\\') {
        line->escaped = true;
        text++;
        length--;
    }
    const char *first_space = length > 0 ? memchr(text, ' ', length) : NULL;
    size_t space = first_space == NULL ? length : (size_t)(first_space - text);
    if (space + 1 >= length)
        return malformed(line, "no name behind the first word");
    if (text[space + 1] == '(')
        return parse_bsd(line, text, length, space);
    if (!read_digest(text, space, &line->digest))
        return malformed(line, "the first word is no digest of 8, 16 or 32 digits");
    if (space + 2 >= length)
        return malformed(line, "no name behind the digest");
    line->name = text + space + 2;
    line->name_length = length - space - 2;
    return LINE_ENTRY;
}

int xxhsum_list_parse(const char *text, size_t length, const char *path, struct arena *arena,
                      struct digest_list *out, struct unshard_error *error)
{
    return digest_list_parse_lines(text, length, path, arena, parse_line, NULL, out, error);
}
