/* SPDX-License-Identifier: MIT
 *
 * An index: what is accepted names only safe files, and its rewritten form is accepted again. */
#include <stdlib.h>
#include <string.h>

#include "formats/index_file.h"

#define INDEX_NAME "model.safetensors.index.json"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_names(const struct index_file *index)
{
    for (size_t i = 0; i < index->file_count; i++) {
        const char *name = index->files[i];

        require(name[0] != '\0' && name[0] != '/' && strchr(name, '\\') == NULL);
        require(strncmp(name, "../", 3) != 0 && strstr(name, "/../") == NULL);
        require(strcmp(name, "..") != 0 && strcmp(name, INDEX_NAME) != 0);
    }
    for (size_t i = 0; i < index->entry_count; i++)
        require(index->entries[i].file < index->file_count);
}

static void rewrite(const struct index_file *index, struct arena *arena)
{
    struct tensor *tensors = calloc(index->entry_count + 1, sizeof *tensors);
    const struct tensor **order = calloc(index->entry_count + 1, sizeof *order);
    struct index_file again = {0};
    struct text text = {0};

    require(tensors != NULL && order != NULL);
    for (size_t i = 0; i < index->entry_count; i++) {
        tensors[i].name = index->entries[i].tensor;
        tensors[i].name_length = index->entries[i].tensor_length;
        order[i] = &tensors[i];
    }
    require(index_file_write(order, index->entry_count, "model.safetensors", index->metadata_json,
                             index->metadata_json_length, 7, &text, NULL) == 0);
    require(index_file_parse(text.data, text.length, "again", INDEX_NAME, arena, &again, NULL) ==
            0);
    require(again.entry_count == index->entry_count);
    require(again.file_count == (index->entry_count > 0));
    text_free(&text);
    free(tensors);
    free(order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct index_file index = {0};
    struct unshard_error error = {0};

    if (index_file_parse((const char *)data, size, "fuzz", INDEX_NAME, &arena, &index, &error) ==
        0) {
        check_names(&index);
        rewrite(&index, &arena);
    } else {
        require(error.code != NULL && error.message[0] != '\0');
    }
    arena_free(&arena);
    return 0;
}
