/* SPDX-License-Identifier: MIT
 *
 * Of an archive that is accepted every entry lies in the file, apart from the others. */
#include "tests/fuzz/memory_reader.h"

#include "formats/torch/zip_archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_input input = {data, size};
    struct byte_reader reader = memory_reader(&input);
    struct arena arena = {0};
    struct zip_archive archive;
    struct unshard_error error = {0};
    int result = zip_archive_read(&reader, "fuzz", &arena, &archive, &error);
    uint64_t sum = 0;
    for (uint32_t i = 0; result == 0 && i < archive.count; i++) {
        const struct zip_entry *entry = &archive.entries[i];
        require(entry->header_offset < entry->data_offset && entry->data_offset <= size);
        require(entry->size <= size - entry->data_offset);
        require(zip_archive_find(&archive, entry->name, entry->name_length) == entry);
        sum += entry->data_offset + entry->size - entry->header_offset;
        require(sum <= size);
    }
    require(result == 0 || (error.code != NULL && error.message[0] != '\0'));
    zip_archive_free(&archive);
    arena_free(&arena);
    return 0;
}
