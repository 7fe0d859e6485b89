/* SPDX-License-Identifier: MIT */
#include "digest/hub_tree.h"

#include "base/error.h"
#include "digest/digest_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FORMAT_VERSION 1U
#define QUOTED 96

struct tree_parse {
    struct digest_json json;
    struct arena *arena;
    struct digest_list *list;
    struct string_map names;
    bool have_version, have_files;
};

/* What the fields of a file say. */
struct file_fields {
    struct digest blob, lfs;
    bool has_size, has_lfs_size;
    uint64_t size, lfs_size;
};

static bool is(struct json_string key, const char *name)
{
    return key.length == strlen(name) && memcmp(key.bytes, name, key.length) == 0;
}

static int refuse_twice(struct tree_parse *parse, const char *where)
{
    return digest_json_refuse(&parse->json, json_offset(&parse->json.reader), where,
                              "a field appears twice");
}

/* An absent value may be spelt null. */
static int read_size(struct tree_parse *parse, const char *where, bool *has, uint64_t *out)
{
    if (*has)
        return refuse_twice(parse, where);
    if (json_peek(&parse->json.reader) == JSON_NULL) {
        int result = json_skip_value(&parse->json.reader);
        return result == 0 ? 0 : digest_json_failed(&parse->json, result, where);
    }
    int result = json_read_u64(&parse->json.reader, out);
    *has = result == 0;
    return result == 0 ? 0 : digest_json_failed(&parse->json, result, where);
}

static int read_digest(struct tree_parse *parse, const char *where, enum digest_algorithm algorithm,
                       struct digest *out)
{
    if (out->algorithm != DIGEST_NONE)
        return refuse_twice(parse, where);
    if (json_peek(&parse->json.reader) != JSON_NULL)
        return digest_json_read_digest(&parse->json, algorithm, where, out);
    int result = json_skip_value(&parse->json.reader);
    return result == 0 ? 0 : digest_json_failed(&parse->json, result, where);
}

static int read_field(struct tree_parse *parse, const char *where, struct json_string key,
                      struct file_fields *fields)
{
    if (is(key, "size"))
        return read_size(parse, where, &fields->has_size, &fields->size);
    if (is(key, "lfs_size"))
        return read_size(parse, where, &fields->has_lfs_size, &fields->lfs_size);
    if (is(key, "blob_id"))
        return read_digest(parse, where, DIGEST_GIT_SHA1, &fields->blob);
    if (is(key, "lfs_sha256"))
        return read_digest(parse, where, DIGEST_SHA256, &fields->lfs);
    int result = json_skip_value(&parse->json.reader);
    return result == 0 ? 0 : digest_json_failed(&parse->json, result, where);
}

/* blob_id of an LFS file is the digest of its pointer, and says nothing of the content. */
static int add_file(struct tree_parse *parse, const char *where, const char *name, size_t length,
                    const struct file_fields *fields)
{
    bool lfs = fields->lfs.algorithm != DIGEST_NONE;
    struct listed_digest entry = {.digest = lfs ? fields->lfs : fields->blob};
    entry.has_size = lfs && fields->has_lfs_size ? true : fields->has_size;
    entry.size = lfs && fields->has_lfs_size ? fields->lfs_size : fields->size;
    int result = digest_list_add(parse->list, parse->arena, parse->json.path, name, length, &entry);
    if (result == -E2BIG)
        return digest_json_refuse(&parse->json, json_offset(&parse->json.reader), where,
                                  "too many files");
    return result == 0 ? 0 : error_no_memory(parse->json.error);
}

static int parse_file(struct tree_parse *parse, struct json_string key)
{
    struct json_reader *reader = &parse->json.reader;
    struct file_fields fields = {0};
    struct json_string field;
    char quoted[QUOTED], where[QUOTED + 16];
    int more = 0;
    size_t length = key.length, offset = json_offset(reader);
    char *name = arena_copy_string(parse->arena, key.bytes, length);
    if (name == NULL)
        return error_no_memory(parse->json.error);
    snprintf(where, sizeof where, "file \"%s\"", error_quote(quoted, sizeof quoted, name, length));
    int added = string_map_add(&parse->names, name, length, 0, NULL);
    if (added < 0)
        return error_no_memory(parse->json.error);
    if (added == 0)
        return digest_json_refuse(&parse->json, offset, where, "appears twice");
    int result = json_enter_object(reader);
    if (result != 0)
        return digest_json_failed(&parse->json, result, where);
    while (result == 0 && (more = json_next_key(reader, &field)) > 0)
        result = read_field(parse, where, field, &fields);
    if (result != 0 || more < 0)
        return result != 0 ? result : digest_json_failed(&parse->json, more, where);
    return add_file(parse, where, name, length, &fields);
}

static int parse_files(struct tree_parse *parse)
{
    struct json_reader *reader = &parse->json.reader;
    struct json_string key;
    int more = 0, result;
    if (parse->have_files)
        return digest_json_refuse(&parse->json, json_offset(reader), "files", "appears twice");
    parse->have_files = true;
    result = json_enter_object(reader);
    if (result != 0)
        return digest_json_failed(&parse->json, result, "files");
    while (result == 0 && (more = json_next_key(reader, &key)) > 0)
        result = parse_file(parse, key);
    return result == 0 && more < 0 ? digest_json_failed(&parse->json, more, "files") : result;
}

static int parse_version(struct tree_parse *parse)
{
    uint64_t version = 0;
    int result = json_read_u64(&parse->json.reader, &version);
    if (result != 0)
        return digest_json_failed(&parse->json, result, "format_version");
    parse->have_version = true;
    if (version == FORMAT_VERSION)
        return 0;
    return error_set(parse->json.error, "unknown-version", ENOTSUP,
                     "%s: format_version is %llu, only %u is known", parse->json.path,
                     (unsigned long long)version, FORMAT_VERSION);
}

static int parse_top(struct tree_parse *parse)
{
    struct json_reader *reader = &parse->json.reader;
    struct json_string key;
    int more = 0, result = json_enter_object(reader);
    if (result != 0)
        return digest_json_failed(&parse->json, result, "top level");
    while (result == 0 && (more = json_next_key(reader, &key)) > 0) {
        if (is(key, "format_version"))
            result = parse_version(parse);
        else if (is(key, "files"))
            result = parse_files(parse);
        else if ((result = json_skip_value(reader)) != 0)
            result = digest_json_failed(&parse->json, result, "top level");
    }
    if (result != 0)
        return result;
    if (more < 0 || (result = json_expect_end(reader)) != 0)
        return digest_json_failed(&parse->json, more < 0 ? more : result, "top level");
    if (!parse->have_version || !parse->have_files)
        return digest_json_refuse(&parse->json, 0, "top level",
                                  parse->have_files ? "no format_version" : "no files");
    return 0;
}

int hub_tree_parse(const char *text, size_t length, const char *path, struct arena *arena,
                   struct digest_list *out, struct unshard_error *error)
{
    struct tree_parse parse = {.json = {.path = path, .code = "malformed-tree", .error = error},
                               .arena = arena,
                               .list = out};
    if (length > DIGEST_LIST_MAX_BYTES)
        return error_set(error, "malformed-tree", EFBIG, "%s: a listing of %zu bytes is too long",
                         path, length);
    json_reader_init(&parse.json.reader, text, length);
    int result = parse_top(&parse);
    json_reader_free(&parse.json.reader);
    string_map_free(&parse.names);
    return result;
}
