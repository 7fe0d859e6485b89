/* `*.safetensors.index.json` and its kin, see formats/README.md 2.3. */
#ifndef FORMATS_INDEX_FILE_H
#define FORMATS_INDEX_FILE_H

#include "base/arena.h"
#include "base/text.h"
#include "formats/tensor_set.h"
#include "unshard.h"

struct index_entry {
    const char *tensor; /* may hold NUL */
    uint32_t tensor_length;
    uint32_t file; /* index into files */
};

struct index_file {
    struct index_entry *entries; /* in file order, names unique */
    size_t entry_count;
    const char **files; /* distinct shard names in order of first use, each a safe relative path */
    size_t file_count;
    const char
        *metadata_json; /* the text of the "metadata" object as it stands; NULL when absent */
    size_t metadata_json_length;
};

#define INDEX_FILE_MAX_BYTES (UINT64_C(512) << 20)

/* What is wrong with a name that a checkpoint gives to one of its files, as the end of a sentence
 * ("is empty", ...): it must be a relative path that stays in its directory. NULL: nothing. */
const char *index_file_name_problem(const char *name, size_t length);

/* Parses an index. Refuses: no weight_map object, values that are not strings, a tensor twice, file
 * names that are absolute, empty, hold a backslash, a NUL or a control byte, have a component "..",
 * "." or "", are longer than 255 bytes a component, or name the index itself (index_name). All
 * memory lives in `arena`. The message begins with `path` and names field and value. */
int index_file_parse(const char *json, size_t length, const char *path, const char *index_name,
                     struct arena *arena, struct index_file *out, struct unshard_error *error);

/* Appends an index that maps every tensor to merged_name, with the original metadata text (NULL: an
 * object with total_size alone). indent 2, keys sorted by bytes, newline at the end. */
int index_file_write(const struct tensor *const *tensors, size_t tensor_count,
                     const char *merged_name, const char *metadata_json,
                     size_t metadata_json_length, uint64_t total_size, struct text *out,
                     struct unshard_error *error);

#endif
