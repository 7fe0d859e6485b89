/* SPDX-License-Identifier: MIT */
#include "digest/manifest.h"

#include "base/error.h"
#include "base/utf8.h"
#include "json/json_string.h"

#include <limits.h>
#include <string.h>

static bool is_utf8(const char *path, size_t length)
{
    for (size_t i = 0, step; i < length; i += step)
        if ((step = utf8_sequence((const unsigned char *)path + i, length - i)) == 0)
            return false;
    return true;
}

const char *manifest_path_problem(const char *path, size_t length)
{
    if (length == 0)
        return "is empty";
    if (length >= PATH_MAX)
        return "is too long";
    if (memchr(path, '\0', length) != NULL)
        return "holds a NUL";
    if (!is_utf8(path, length))
        return "is not UTF-8";
    for (size_t first = 0, end; first <= length; first = end + 1) {
        const char *slash = memchr(path + first, '/', length - first);
        end = slash == NULL ? length : (size_t)(slash - path);
        if (end == first)
            return "is absolute or has an empty component";
        if ((end - first == 1 && path[first] == '.') ||
            (end - first == 2 && path[first] == '.' && path[first + 1] == '.'))
            return "has a component \".\" or \"..\"";
    }
    return NULL;
}

static void write_chunks(const struct manifest_file *file, struct text *out)
{
    size_t size = digest_size(DIGEST_SHA256);
    text_append_string(out, "\"chunks\": [");
    for (uint32_t i = 0; i < file->chunk_count; i++) {
        struct digest digest = {.algorithm = DIGEST_SHA256};
        char hex[DIGEST_MAX_HEX];
        memcpy(digest.bytes, file->chunks + i * size, size);
        text_append_string(out, i == 0 ? "\"" : ", \"");
        text_append_string(out, digest_to_hex(&digest, hex));
        text_append_string(out, "\"");
    }
    text_append_string(out, "]");
}

static int write_file(const struct manifest_file *file, struct text *out,
                      struct unshard_error *error)
{
    char hex[DIGEST_MAX_HEX], quoted[256];
    size_t length = strlen(file->path);
    const char *problem = manifest_path_problem(file->path, length);
    if (problem != NULL)
        return error_set(error, "unsafe-name", 0, "%s: its name %s: it cannot stand in a manifest",
                         error_quote(quoted, sizeof quoted, file->path, length), problem);
    text_append_string(out, "    {\"path\": ");
    json_string_write(out, file->path, length);
    text_append_string(out, ", \"size\": ");
    text_append_u64(out, file->size);
    text_printf(out, ", \"sha256\": \"%s\",\n     ", digest_to_hex(&file->sha256, hex));
    write_chunks(file, out);
    text_append_string(out, "}");
    return 0;
}

int manifest_write(const struct manifest *manifest, struct text *out, struct unshard_error *error)
{
    text_printf(out, "{\n  \"version\": %u,\n  \"writer\": \"unshard " UNSHARD_VERSION "\",\n",
                MANIFEST_VERSION);
    text_printf(out, "  \"chunk_bytes\": %llu,\n  \"files\": [\n",
                (unsigned long long)manifest->chunk_bytes);
    for (uint32_t i = 0; i < manifest->file_count; i++) {
        int result = write_file(&manifest->files[i], out, error);
        if (result != 0)
            return result;
        text_append_string(out, i + 1 < manifest->file_count ? ",\n" : "\n");
    }
    text_append_string(out, "  ]\n}\n");
    return out->failed ? error_no_memory(error) : 0;
}
