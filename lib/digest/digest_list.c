/* SPDX-License-Identifier: MIT */
#include "digest/digest_list.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTED 96

/* ---- entries -----------------------------------------------------------------------------------
 */

/* Why the name cannot stand for a file below the directory, or NULL and its plain form in out,
 * which has room for it. */
static const char *clean_name(const char *name, size_t length, char *out)
{
    size_t written = 0;
    if (length == 0)
        return "is empty";
    if (length >= PATH_MAX)
        return "is too long";
    if (memchr(name, '\0', length) != NULL)
        return "holds a NUL";
    if (name[0] == '/')
        return "is absolute";
    for (size_t first = 0, end; first <= length; first = end + 1) {
        const char *slash = memchr(name + first, '/', length - first);
        end = slash == NULL ? length : (size_t)(slash - name);
        size_t size = end - first;
        if (size == 2 && name[first] == '.' && name[first + 1] == '.')
            return "has a component \"..\"";
        if (end == length && (size == 0 || (size == 1 && name[first] == '.')))
            return "names a directory";
        if (size == 0 || (size == 1 && name[first] == '.'))
            continue;
        if (written > 0)
            out[written++] = '/';
        memcpy(out + written, name + first, size);
        written += size;
    }
    out[written] = '\0';
    return NULL;
}

static int reserve(struct digest_list *list)
{
    if (list->count < list->capacity)
        return 0;
    if (list->count >= DIGEST_LIST_MAX_ENTRIES)
        return -E2BIG;
    uint32_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
    struct listed_digest *grown = reallocarray(list->items, capacity, sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    list->items = grown;
    list->capacity = capacity;
    return 0;
}

int digest_list_add(struct digest_list *list, struct arena *arena, const char *place,
                    const char *name, size_t length, const struct listed_digest *entry)
{
    char clean[PATH_MAX], quoted[QUOTED];
    const char *problem = clean_name(name, length, clean);
    if (problem != NULL) {
        if (list->unsafe_count++ == 0)
            snprintf(list->unsafe, sizeof list->unsafe, "%.48s: the name \"%s\" %s", place,
                     error_quote(quoted, sizeof quoted, name, length), problem);
        return 0;
    }
    int result = reserve(list);
    if (result != 0)
        return result;
    struct listed_digest *item = &list->items[list->count];
    *item = *entry;
    item->name = arena_copy_string(arena, clean, strlen(clean));
    if (item->name == NULL)
        return -ENOMEM;
    list->count++;
    return 0;
}

void digest_list_malformed(struct digest_list *list, const char *place, const char *problem)
{
    if (list->malformed_count++ == 0)
        error_set(&list->malformed, "malformed-checksums", 0, "%s: %s", place, problem);
}

void digest_list_unsupported(struct digest_list *list, const char *place, const char *what)
{
    if (list->unsupported_count++ == 0)
        snprintf(list->unsupported, sizeof list->unsupported, "%.64s: %s", place, what);
}

void digest_list_free(struct digest_list *list)
{
    free(list->items);
    *list = (struct digest_list){0};
}

/* ---- lines -------------------------------------------------------------------------------------
 */

/* Undoes the escapes of sha256sum and xxhsum into out, which has room. False: another escape. */
static bool unescape(const char *name, size_t length, char *out, size_t *out_length)
{
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        char byte = name[i];
        if (byte == '\\') {
            if (++i == length)
                return false;
            if (name[i] == '\\')
                byte = '\\';
            else if (name[i] == 'n')
                byte = '\n';
            else if (name[i] == 'r')
                byte = '\r';
            else
                return false;
        }
        out[written++] = byte;
    }
    *out_length = written;
    return true;
}

static int add_line(struct digest_list *list, struct arena *arena, const char *place,
                    uint32_t number, const struct list_line *line)
{
    char plain[DIGEST_LIST_MAX_LINE];
    struct listed_digest entry = {.digest = line->digest, .line = number};
    const char *name = line->name;
    size_t length = line->name_length;
    if (line->escaped) {
        if (!unescape(name, length, plain, &length)) {
            digest_list_malformed(list, place, "the name has an escape other than \\\\, \\n, \\r");
            return 0;
        }
        name = plain;
    }
    return digest_list_add(list, arena, place, name, length, &entry);
}

static int parse_line(struct digest_list *list, struct arena *arena, const char *path,
                      uint32_t number, struct list_line *line, list_line_parser parser, void *form)
{
    char place[192], quoted[128];
    if (line->length == 0 || line->text[0] == '#')
        return 0;
    snprintf(place, sizeof place, "%s line %u",
             error_quote(quoted, sizeof quoted, path, strlen(path)), number);
    enum line_result result = LINE_MALFORMED;
    if (line->length > DIGEST_LIST_MAX_LINE)
        line->problem = "the line is longer than 32768 bytes";
    else
        result = parser(form, line);
    if (result == LINE_ENTRY)
        return add_line(list, arena, place, number, line);
    if (result == LINE_MALFORMED)
        digest_list_malformed(list, place, line->problem);
    else if (result == LINE_UNSUPPORTED)
        digest_list_unsupported(list, place, line->problem);
    return 0;
}

static int parse_all(const char *text, size_t length, const char *path, struct arena *arena,
                     list_line_parser parser, void *form, struct digest_list *out,
                     struct unshard_error *error)
{
    const char *end = text + length;
    uint32_t number = 0;
    while (text < end) {
        const char *feed = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = feed == NULL ? end : feed;
        struct list_line line = {.text = text, .length = (size_t)(line_end - text)};
        int result = parse_line(out, arena, path, ++number, &line, parser, form);
        if (result == -E2BIG)
            return error_set(error, "malformed-checksums", E2BIG, "%s: more than %u digests", path,
                             DIGEST_LIST_MAX_ENTRIES);
        if (result != 0)
            return error_no_memory(error);
        text = feed == NULL ? end : feed + 1;
    }
    return 0;
}

int digest_list_parse_lines(const char *text, size_t length, const char *path, struct arena *arena,
                            list_line_parser parser, void *form, struct digest_list *out,
                            struct unshard_error *error)
{
    if (length > DIGEST_LIST_MAX_BYTES)
        return error_set(error, "malformed-checksums", EFBIG, "%s: a list of %zu bytes is too long",
                         path, length);
    const char *nul = length > 0 ? memchr(text, '\0', length) : NULL;
    if (nul != NULL)
        return error_set_at(error, "malformed-checksums", 0, (uint64_t)(nul - text),
                            "%s: holds a NUL at byte %zu: not a list of digests, or made with -z",
                            path, (size_t)(nul - text));
    int result = parse_all(text, length, path, arena, parser, form, out, error);
    if (result != 0)
        return result;
    if (out->count + out->unsafe_count + out->unsupported_count > 0)
        return 0;
    if (out->malformed_count == 0)
        return error_set(error, "malformed-checksums", 0, "%s: holds no digest", path);
    *error = out->malformed;
    return -EINVAL;
}
