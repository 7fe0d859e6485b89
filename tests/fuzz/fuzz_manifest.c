/* SPDX-License-Identifier: MIT
 *
 * A manifest: what is accepted is safe and complete, and the same after writing and reading. */
#include "tests/fuzz/digest_list_check.h"

#include "digest/manifest.h"

static void check_again(const struct manifest *manifest, struct arena *arena)
{
    struct manifest again;
    struct text text = {0};
    require(manifest_write(manifest, &text, NULL) == 0);
    require(manifest_parse(text.data, text.length, "again", arena, &again, NULL) == 0);
    require(again.file_count == manifest->file_count && again.chunk_bytes == manifest->chunk_bytes);
    for (uint32_t i = 0; i < again.file_count; i++) {
        const struct manifest_file *a = &manifest->files[i], *b = &again.files[i];
        require(strcmp(a->path, b->path) == 0 && a->size == b->size);
        require(digest_equal(&a->sha256, &b->sha256) && a->chunk_count == b->chunk_count);
        require(a->chunk_count == 0 ||
                memcmp(a->chunks, b->chunks, a->chunk_count * sizeof *a->chunks) == 0);
    }
    text_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct manifest manifest;
    struct unshard_error error = {0};
    if (manifest_parse((const char *)data, size, "fuzz", &arena, &manifest, &error) == 0) {
        for (uint32_t i = 0; i < manifest.file_count; i++) {
            const struct manifest_file *file = &manifest.files[i];
            uint32_t chunks;
            check_safe_name(file->path);
            require(manifest_chunk_count(file->size, manifest.chunk_bytes, &chunks));
            require(chunks == file->chunk_count);
        }
        check_again(&manifest, &arena);
    } else {
        require(error.code != NULL && error.message[0] != '\0');
    }
    arena_free(&arena);
    return 0;
}
