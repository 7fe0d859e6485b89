/* SPDX-License-Identifier: MIT */
#include "digest/checksums_json.h"

#include "base/error.h"
#include "digest/digest_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define QUOTED 96
static const char code[] = "malformed-checksums";

static int parse_entry(struct digest_json *json, struct arena *arena, struct json_string key,
                       struct digest_list *list)
{
    struct listed_digest entry = {0};
    char quoted[QUOTED], where[QUOTED + 16];
    size_t length = key.length;
    char *name = arena_copy_string(arena, key.bytes, length);
    if (name == NULL)
        return error_no_memory(json->error);
    snprintf(where, sizeof where, "file \"%s\"", error_quote(quoted, sizeof quoted, name, length));
    int result = digest_json_read_digest(json, DIGEST_SHA256, where, &entry.digest);
    if (result != 0)
        return result;
    result = digest_list_add(list, arena, json->path, name, length, &entry);
    if (result == -E2BIG)
        return digest_json_refuse(json, json_offset(&json->reader), where, "too many files");
    return result == 0 ? 0 : error_no_memory(json->error);
}

static int parse_checksums(struct digest_json *json, struct arena *arena, struct digest_list *list)
{
    struct json_string key;
    int more = 0, result = json_enter_object(&json->reader);
    if (result != 0)
        return digest_json_failed(json, result, "checksums");
    while (result == 0 && (more = json_next_key(&json->reader, &key)) > 0)
        result = parse_entry(json, arena, key, list);
    return result == 0 && more < 0 ? digest_json_failed(json, more, "checksums") : result;
}

static int parse_top(struct digest_json *json, struct arena *arena, struct digest_list *list)
{
    struct json_string key;
    bool found = false;
    int more = 0, result = json_enter_object(&json->reader);
    if (result != 0)
        return digest_json_failed(json, result, "top level");
    while (result == 0 && (more = json_next_key(&json->reader, &key)) > 0) {
        bool wanted =
            key.length == strlen("checksums") && memcmp(key.bytes, "checksums", key.length) == 0;
        if (wanted && found)
            return digest_json_refuse(json, json_offset(&json->reader), "checksums",
                                      "appears twice");
        found = found || wanted;
        if (wanted)
            result = parse_checksums(json, arena, list);
        else if ((result = json_skip_value(&json->reader)) != 0)
            result = digest_json_failed(json, result, "top level");
    }
    if (result != 0)
        return result;
    if (more < 0 || (result = json_expect_end(&json->reader)) != 0)
        return digest_json_failed(json, more < 0 ? more : result, "top level");
    if (!found)
        return error_set(json->error, "unknown-form", ENOTSUP, "%s: there is no \"checksums\"",
                         json->path);
    return 0;
}

int checksums_json_parse(const char *text, size_t length, const char *path, struct arena *arena,
                         struct digest_list *out, struct unshard_error *error)
{
    struct digest_json json = {.path = path, .code = code, .error = error};
    if (length > DIGEST_LIST_MAX_BYTES)
        return error_set(error, code, EFBIG, "%s: a list of %zu bytes is too long", path, length);
    json_reader_init(&json.reader, text, length);
    int result = parse_top(&json, arena, out);
    json_reader_free(&json.reader);
    return result;
}
