/* SPDX-License-Identifier: MIT */
#include "digest/list_name.h"

#include "digest/manifest.h"

#include <string.h>
#include <strings.h>

/* Words that a name may end with (NAME.md5, NAME.md5sum, NAME.md5sums) or be (MD5SUM, MD5SUMS). */
static const struct {
    const char *word;
    enum digest_list_kind kind;
    enum digest_algorithm algorithm;
} words[] = {
    {"md5", DIGEST_LIST_CHECKSUMS, DIGEST_MD5},
    {"sha1", DIGEST_LIST_CHECKSUMS, DIGEST_SHA1},
    {"sha256", DIGEST_LIST_CHECKSUMS, DIGEST_SHA256},
    {"sha512", DIGEST_LIST_CHECKSUMS, DIGEST_SHA512},
    {"xxh", DIGEST_LIST_XXHSUM, DIGEST_NONE},
    {"xxh32", DIGEST_LIST_XXHSUM, DIGEST_NONE},
    {"xxh64", DIGEST_LIST_XXHSUM, DIGEST_NONE},
    {"xxh3", DIGEST_LIST_XXHSUM, DIGEST_NONE},
    {"xxh128", DIGEST_LIST_XXHSUM, DIGEST_NONE},
};

static const struct {
    const char *name;
    struct digest_list_name is;
} whole_names[] = {
    {"checksums.txt", {DIGEST_LIST_CHECKSUMS, DIGEST_NONE, 0}},
    {"checksums", {DIGEST_LIST_CHECKSUMS, DIGEST_NONE, 0}},
    {"checklist.chk", {DIGEST_LIST_CHECKSUMS, DIGEST_MD5, 0}},
    {"checksums.json", {DIGEST_LIST_JSON, DIGEST_NONE, 0}},
};

/* The text is the word, or the word and "sum" or "sums". */
static bool is_word(const char *text, size_t length, const char *word, bool bare)
{
    size_t size = strlen(word);
    if (length < size || strncasecmp(text, word, size) != 0)
        return false;
    text += size;
    length -= size;
    return (bare && length == 0) || (length == 3 && strncasecmp(text, "sum", 3) == 0) ||
           (length == 4 && strncasecmp(text, "sums", 4) == 0);
}

static bool find_word(const char *text, size_t length, bool bare, struct digest_list_name *out)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!is_word(text, length, words[i].word, bare))
            continue;
        out->kind = words[i].kind;
        out->algorithm = words[i].algorithm;
        return true;
    }
    return false;
}

static bool ends_with(const char *name, size_t length, const char *ending)
{
    size_t size = strlen(ending);
    return length > size && strncasecmp(name + length - size, ending, size) == 0;
}

struct digest_list_name digest_list_name(const char *name)
{
    static const char list[] = "_checklist.chk";
    struct digest_list_name out = {0};
    size_t length = strlen(name);
    if (name[0] == '.') /* "._SHA256SUMS" of macOS, temporary files */
        return out;
    if (strcmp(name, MANIFEST_NAME) == 0)
        return (struct digest_list_name){.kind = DIGEST_LIST_MANIFEST};
    for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++)
        if (strcasecmp(name, whole_names[i].name) == 0)
            return whole_names[i].is;
    if (ends_with(name, length, list))
        return (struct digest_list_name){.kind = DIGEST_LIST_CHECKSUMS, .algorithm = DIGEST_MD5};
    size_t stem = ends_with(name, length, ".txt") ? length - 4 : length;
    if (find_word(name, stem, false, &out))
        return out;
    const char *dot = strrchr(name, '.');
    if (dot == NULL || dot == name || !find_word(dot + 1, strlen(dot + 1), true, &out))
        return (struct digest_list_name){0};
    out.subject_length = (size_t)(dot - name);
    return out;
}
