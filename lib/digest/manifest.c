/* SPDX-License-Identifier: MIT
 *
 * Reading. The order of the fields is free, but "version" and "chunk_bytes" stand before "files",
 * so that one pass is enough. */
#include "digest/manifest.h"

#include "base/error.h"
#include "digest/digest_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTED 96

struct manifest_parse {
    struct digest_json json;
    struct arena *arena;
    struct manifest_file *files; /* malloc'd until the end */
    uint32_t file_count, file_capacity;
    uint8_t *chunks; /* of the file at hand, malloc'd */
    uint32_t chunk_count, chunk_capacity;
    uint64_t chunk_bytes;
    enum digest_algorithm chunk_algorithm; /* as the version says */
    bool have_version, have_files;
    struct string_map paths;
};

static bool is(struct json_string key, const char *name)
{
    return key.length == strlen(name) && memcmp(key.bytes, name, key.length) == 0;
}

static int failed(struct manifest_parse *parse, int result, const char *where)
{
    return result == 0 ? 0 : digest_json_failed(&parse->json, result, where);
}

/* A problem of what was read last. */
static int refuse(struct manifest_parse *parse, const char *where, const char *problem)
{
    return digest_json_refuse(&parse->json, json_offset(&parse->json.reader), where, problem);
}

bool manifest_chunk_count(uint64_t size, uint64_t chunk_bytes, uint32_t *out)
{
    uint64_t count = size / chunk_bytes + (size % chunk_bytes != 0);
    *out = (uint32_t)count;
    return count <= UINT32_MAX;
}

/* ---- one file ----------------------------------------------------------------------------------
 */

static int add_chunk(struct manifest_parse *parse, const char *where)
{
    struct digest digest;
    size_t size = digest_size(parse->chunk_algorithm);
    int result = digest_json_read_digest(&parse->json, parse->chunk_algorithm, where, &digest);
    if (result != 0)
        return result;
    if (parse->chunk_count == parse->chunk_capacity) {
        uint32_t capacity = parse->chunk_capacity == 0 ? 1024 : parse->chunk_capacity * 2;
        uint8_t *grown = reallocarray(parse->chunks, capacity, size);
        if (grown == NULL)
            return error_no_memory(parse->json.error);
        parse->chunks = grown;
        parse->chunk_capacity = capacity;
    }
    memcpy(parse->chunks + parse->chunk_count++ * size, digest.bytes, size);
    return 0;
}

static int parse_chunks(struct manifest_parse *parse, const char *where)
{
    struct json_reader *reader = &parse->json.reader;
    int more = 0, result = failed(parse, json_enter_array(reader), where);
    parse->chunk_count = 0;
    while (result == 0 && (more = json_next_element(reader)) > 0)
        result = add_chunk(parse, where);
    return result == 0 && more < 0 ? failed(parse, more, where) : result;
}

static int parse_path(struct manifest_parse *parse, struct manifest_file *file)
{
    struct json_string path;
    char quoted[QUOTED], where[QUOTED + 16];
    int result = failed(parse, json_read_string(&parse->json.reader, &path), "path");
    if (result != 0)
        return result;
    snprintf(where, sizeof where, "path \"%s\"",
             error_quote(quoted, sizeof quoted, path.bytes, path.length));
    const char *problem = manifest_path_problem(path.bytes, path.length);
    if (problem != NULL)
        return refuse(parse, where, problem);
    file->path = arena_copy_string(parse->arena, path.bytes, path.length);
    if (file->path == NULL)
        return error_no_memory(parse->json.error);
    int added = string_map_add(&parse->paths, file->path, path.length, 0, NULL);
    if (added < 0)
        return error_no_memory(parse->json.error);
    return added == 0 ? refuse(parse, where, "appears twice") : 0;
}

enum field { FIELD_PATH = 1, FIELD_SIZE = 2, FIELD_SHA256 = 4, FIELD_CHUNKS = 8, FIELD_ALL = 15 };

static enum field field_of(struct json_string key)
{
    return is(key, "path")     ? FIELD_PATH
           : is(key, "size")   ? FIELD_SIZE
           : is(key, "sha256") ? FIELD_SHA256
           : is(key, "chunks") ? FIELD_CHUNKS
                               : 0;
}

static int parse_field(struct manifest_parse *parse, struct json_string key,
                       struct manifest_file *file, unsigned *seen)
{
    char where[QUOTED + 16], quoted[QUOTED];
    enum field field = field_of(key);
    if (field == 0 || (*seen & field) != 0) {
        snprintf(where, sizeof where, "field \"%s\"",
                 error_quote(quoted, sizeof quoted, key.bytes, key.length));
        return refuse(parse, where, field == 0 ? "is not known" : "appears twice");
    }
    *seen |= field;
    switch (field) {
    case FIELD_PATH:
        return parse_path(parse, file);
    case FIELD_SIZE:
        return failed(parse, json_read_u64(&parse->json.reader, &file->size), "size");
    case FIELD_SHA256:
        return digest_json_read_digest(&parse->json, DIGEST_SHA256, "sha256", &file->sha256);
    default:
        return parse_chunks(parse, "chunks");
    }
}

/* The chunks that were read are the file's. */
static int take_chunks(struct manifest_parse *parse, struct manifest_file *file)
{
    uint32_t expected;
    char where[QUOTED + 16], quoted[QUOTED], problem[96];
    bool fits = manifest_chunk_count(file->size, parse->chunk_bytes, &expected);
    if (!fits || expected != parse->chunk_count) {
        snprintf(where, sizeof where, "path \"%s\"",
                 error_quote(quoted, sizeof quoted, file->path, strlen(file->path)));
        snprintf(problem, sizeof problem, "%u chunks do not make up %llu bytes", parse->chunk_count,
                 (unsigned long long)file->size);
        return refuse(parse, where, problem);
    }
    file->chunk_count = expected;
    size_t size = digest_size(parse->chunk_algorithm);
    file->chunks = arena_alloc_array(parse->arena, expected, size);
    if (file->chunks == NULL)
        return error_no_memory(parse->json.error);
    if (expected > 0)
        memcpy(file->chunks, parse->chunks, expected * size);
    return 0;
}

static int parse_file(struct manifest_parse *parse)
{
    struct json_reader *reader = &parse->json.reader;
    struct manifest_file file = {0};
    struct json_string key;
    unsigned seen = 0;
    int more = 0, result = failed(parse, json_enter_object(reader), "files");
    while (result == 0 && (more = json_next_key(reader, &key)) > 0)
        result = parse_field(parse, key, &file, &seen);
    if (result == 0 && more < 0)
        result = failed(parse, more, "files");
    if (result == 0 && seen != FIELD_ALL)
        result = refuse(parse, "files",
                        "an entry needs path, size, sha256 and chunks, and one of them is missing");
    if (result == 0)
        result = take_chunks(parse, &file);
    if (result != 0)
        return result;
    if (parse->file_count == MANIFEST_MAX_FILES)
        return refuse(parse, "files", "too many");
    if (parse->file_count == parse->file_capacity) {
        uint32_t capacity = parse->file_capacity == 0 ? 64 : parse->file_capacity * 2;
        struct manifest_file *grown = reallocarray(parse->files, capacity, sizeof *grown);
        if (grown == NULL)
            return error_no_memory(parse->json.error);
        parse->files = grown;
        parse->file_capacity = capacity;
    }
    parse->files[parse->file_count++] = file;
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int parse_files(struct manifest_parse *parse)
{
    struct json_reader *reader = &parse->json.reader;
    if (parse->have_files)
        return refuse(parse, "files", "appears twice");
    if (!parse->have_version || parse->chunk_bytes == 0)
        return refuse(parse, "files", "stands before version and chunk_bytes");
    parse->have_files = true;
    int more = 0, result = failed(parse, json_enter_array(reader), "files");
    while (result == 0 && (more = json_next_element(reader)) > 0)
        result = parse_file(parse);
    return result == 0 && more < 0 ? failed(parse, more, "files") : result;
}

static int parse_version(struct manifest_parse *parse)
{
    uint64_t version = 0;
    int result = failed(parse, json_read_u64(&parse->json.reader, &version), "version");
    if (result != 0)
        return result;
    if (parse->have_version)
        return refuse(parse, "version", "appears twice");
    parse->have_version = true;
    parse->chunk_algorithm = version == MANIFEST_VERSION ? DIGEST_SHA256 : DIGEST_XXH3_128;
    if (version == MANIFEST_VERSION || version == 1)
        return 0;
    return error_set(parse->json.error, "unknown-version", ENOTSUP,
                     "%s: manifest version %llu; this unshard knows up to %u, seal it again or "
                     "use a newer one",
                     parse->json.path, (unsigned long long)version, MANIFEST_VERSION);
}

static int parse_chunk_bytes(struct manifest_parse *parse)
{
    uint64_t bytes = 0;
    int result = failed(parse, json_read_u64(&parse->json.reader, &bytes), "chunk_bytes");
    if (result != 0)
        return result;
    if (parse->chunk_bytes != 0)
        return refuse(parse, "chunk_bytes", "appears twice");
    if (bytes < MANIFEST_LEAST_CHUNK || bytes > MANIFEST_MOST_CHUNK || (bytes & (bytes - 1)) != 0)
        return refuse(parse, "chunk_bytes", "is no power of two from 65536 to 67108864");
    parse->chunk_bytes = bytes;
    return 0;
}

static int parse_member(struct manifest_parse *parse, struct json_string key)
{
    char where[QUOTED + 16], quoted[QUOTED];
    if (is(key, "version"))
        return parse_version(parse);
    if (is(key, "chunk_bytes"))
        return parse_chunk_bytes(parse);
    if (is(key, "files"))
        return parse_files(parse);
    if (is(key, "writer"))
        return failed(parse, json_skip_value(&parse->json.reader), "writer");
    snprintf(where, sizeof where, "field \"%s\"",
             error_quote(quoted, sizeof quoted, key.bytes, key.length));
    return refuse(parse, where, "is not known");
}

static int parse_top(struct manifest_parse *parse)
{
    struct json_reader *reader = &parse->json.reader;
    struct json_string key;
    int more = 0, result = failed(parse, json_enter_object(reader), "top level");
    while (result == 0 && (more = json_next_key(reader, &key)) > 0)
        result = parse_member(parse, key);
    if (result == 0 && more < 0)
        result = failed(parse, more, "top level");
    if (result == 0)
        result = failed(parse, json_expect_end(reader), "top level");
    if (result == 0 && !parse->have_files)
        result = digest_json_refuse(&parse->json, 0, "top level", "there are no files");
    return result;
}

static int deliver(struct manifest_parse *parse, struct manifest *out)
{
    struct manifest manifest = {.chunk_bytes = parse->chunk_bytes,
                                .chunk_algorithm = parse->chunk_algorithm,
                                .file_count = parse->file_count};
    manifest.files = arena_alloc_array(parse->arena, parse->file_count, sizeof *manifest.files);
    if (manifest.files == NULL)
        return error_no_memory(parse->json.error);
    if (parse->file_count > 0)
        memcpy(manifest.files, parse->files, parse->file_count * sizeof *manifest.files);
    *out = manifest;
    return 0;
}

int manifest_parse(const char *text, size_t length, const char *path, struct arena *arena,
                   struct manifest *out, struct unshard_error *error)
{
    struct manifest_parse parse = {
        .json = {.path = path, .code = "malformed-manifest", .error = error}, .arena = arena};
    if (length > MANIFEST_MAX_BYTES)
        return error_set(error, "malformed-manifest", EFBIG,
                         "%s: a manifest of %zu bytes is too long", path, length);
    json_reader_init(&parse.json.reader, text, length);
    int result = parse_top(&parse);
    if (result == 0)
        result = deliver(&parse, out);
    json_reader_free(&parse.json.reader);
    string_map_free(&parse.paths);
    free(parse.files);
    free(parse.chunks);
    return result;
}
