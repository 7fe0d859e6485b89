/* What every format is reduced to: tensors as byte ranges of files, and string metadata. */
#ifndef FORMATS_TENSOR_SET_H
#define FORMATS_TENSOR_SET_H

#include "base/arena.h"
#include "formats/dtype.h"

#include <stddef.h>
#include <stdint.h>

struct gather;

/* Where in a tensor lies what a file holds of it (torch.distributed.checkpoint). */
struct tensor_part {
    const uint64_t *offsets; /* of the part's first element, one for each dimension */
    const uint64_t *whole;   /* shape of the tensor; NULL: as large as its parts reach */
};

struct tensor {
    const char *name; /* UTF-8, may hold NUL */
    uint32_t name_length;
    uint32_t rank;
    const uint64_t *shape;          /* rank numbers */
    uint32_t file;                  /* number of the source file; set by whoever reads several */
    enum dtype dtype;               /* when type_name is NULL */
    const char *type_name;          /* static: of an element type that safetensors does not have */
    uint64_t offset;                /* absolute, in the source file; 0 when gathered */
    uint64_t length;                /* bytes */
    const struct gather *gather;    /* where the bytes are when not in one range; else NULL */
    const struct tensor_part *part; /* NULL: the tensor is whole */
};

/* The element type as the tensor's own format calls it. */
static inline const char *tensor_type_name(const struct tensor *tensor)
{
    return tensor->type_name != NULL ? tensor->type_name : dtype_name(tensor->dtype);
}

/* The order in which the reference library of safetensors lays tensors out: dtype rank descending,
 * then name as bytes. For qsort: negative, 0, positive. */
int tensor_canonical_compare(const struct tensor *a, const struct tensor *b);

struct metadata_entry {
    const char *key, *value;
    uint32_t key_length, value_length;
};

/* Tensors in data order, metadata in file order, keys unique. metadata is NULL when the file has
 * none at all, not NULL with a count of 0 when it has an empty one. All memory belongs to the arena
 * of the reader. Zero-initialised is an empty set. */
struct tensor_set {
    struct tensor *tensors;
    size_t tensor_count;
    struct metadata_entry *metadata;
    size_t metadata_count;
    uint64_t data_offset; /* where the data buffer of the file begins */
    const char *note;     /* for a person, on how the file was read; NULL: nothing to say */
    const void *detail;   /* what else the format's own functions know of the file, or NULL */
};

/* How a format reads the file that it describes: pread-like, all or an error. */
struct byte_reader {
    void *context;
    uint64_t size;
    /* Reads exactly length bytes at offset; 0 or a negative errno. May block. */
    int (*read)(void *context, uint64_t offset, void *buffer, size_t length);
    /* Tells that these bytes will be read soon, so that many small reads need not wait for each
     * other. NULL: no use in telling. */
    void (*advise)(void *context, uint64_t offset, uint64_t length);
};

#endif
