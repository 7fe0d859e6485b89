/* SPDX-License-Identifier: MIT
 *
 * What a pickle says, as typed values. Nothing is imported and nothing is called: a global is its
 * row in a table of known names, a call is a value that tells who would have been called with what.
 * All memory belongs to an arena; strings point into the pickle's bytes. */
#ifndef FORMATS_TORCH_PICKLE_VALUES_H
#define FORMATS_TORCH_PICKLE_VALUES_H

#include "formats/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,     /* fits 64 bits */
    PICKLE_BIG_INT, /* does not: string.bytes are its two's complement, little-endian */
    PICKLE_FLOAT,
    PICKLE_STRING, /* as written: may hold NUL or be no UTF-8 */
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_SET,
    PICKLE_DICT,       /* also OrderedDict; items are keys and values in turn, in order */
    PICKLE_GLOBAL,     /* a known name */
    PICKLE_CALL,       /* a known name called with a tuple of arguments */
    PICKLE_OBJECT,     /* an instance of a known class; call.state is what BUILD gave it, or NULL */
    PICKLE_PERSISTENT, /* a persistent id: call.arguments is the id */
};

/* What a known global is good for. */
enum pickle_role {
    PICKLE_ROLE_ORDERED_DICT,
    PICKLE_ROLE_REBUILD_TENSOR,    /* (storage, offset, size, stride) */
    PICKLE_ROLE_REBUILD_TENSOR_V2, /* (storage, offset, size, stride, grad, hooks[, metadata]) */
    PICKLE_ROLE_REBUILD_TENSOR_V3, /* (storage, offset, size, stride, grad, hooks, dtype[, ...]) */
    PICKLE_ROLE_REBUILD_PARAMETER, /* (tensor, grad, hooks[, state]) */
    PICKLE_ROLE_REBUILD_FROM_TYPE, /* (function, type, arguments, state) */
    PICKLE_ROLE_TENSOR_TYPE,       /* torch.Tensor, Parameter: only as that type */
    PICKLE_ROLE_OTHER_TENSOR,      /* rebuilds a tensor whose bytes are not plain elements */
    PICKLE_ROLE_STORAGE,           /* element type: dtype */
    PICKLE_ROLE_UNTYPED_STORAGE,
    PICKLE_ROLE_OTHER_STORAGE, /* of elements that safetensors does not have */
    PICKLE_ROLE_DTYPE,
    PICKLE_ROLE_OTHER_DTYPE,
    PICKLE_ROLE_SIZE,  /* torch.Size(tuple) */
    PICKLE_ROLE_PLAIN, /* gives a value that is no tensor and that nobody here looks at */
    /* of .metadata of torch.distributed.checkpoint */
    PICKLE_ROLE_GETATTR, /* (MEMORY_FORMAT, name) only */
    PICKLE_ROLE_MEMORY_FORMAT,
    PICKLE_ROLE_METADATA,
    PICKLE_ROLE_TENSOR_METADATA,
    PICKLE_ROLE_BYTES_METADATA,
    PICKLE_ROLE_PROPERTIES,
    PICKLE_ROLE_CHUNK,
    PICKLE_ROLE_METADATA_INDEX,
    PICKLE_ROLE_STORAGE_INFO,
    PICKLE_ROLE_STORAGE_META,
};

/* What may be done with a global. */
enum pickle_use { PICKLE_MENTION = 0, PICKLE_REDUCE = 1, PICKLE_NEWOBJ = 2 };

struct pickle_global {
    const char *module, *name;
    enum pickle_role role;
    uint8_t uses;     /* of enum pickle_use, or-ed */
    bool distributed; /* known in .metadata only */
    enum dtype dtype; /* of STORAGE and DTYPE */
};

struct pickle_value;
struct pickle_items {
    struct pickle_value **values;
    uint32_t count, capacity;
};

struct pickle_value {
    uint8_t kind;   /* enum pickle_kind */
    bool visited;   /* for walks over a pickle that may be as entangled as it likes */
    uint32_t bytes; /* length of string.bytes */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *string;
        struct pickle_items *items;
        const struct pickle_global *global;
        struct pickle_call *call;
    };
};

struct pickle_call {
    const struct pickle_global *global; /* NULL for a persistent id */
    struct pickle_value *arguments, *state;
    const void *attachment; /* for whoever interprets the value; NULL at first */
};

/* The row of a global by its exact names, or NULL. distributed: also what .metadata needs. */
const struct pickle_global *pickle_global_find(const char *module, size_t module_length,
                                               const char *name, size_t name_length,
                                               bool distributed);
/* A global that has no place in data of any kind and is what attacks are made of: os.system,
 * builtins.eval, subprocess.Popen... */
bool pickle_global_is_hostile(const char *module, size_t module_length, const char *name,
                              size_t name_length);

/* A word for messages: "dict", "tuple"... */
const char *pickle_kind_name(enum pickle_kind kind);
bool pickle_is_string(const struct pickle_value *value, const char *text);
/* Item i of a tuple, or NULL when it is none or shorter. */
const struct pickle_value *pickle_tuple_item(const struct pickle_value *value, uint32_t i);
/* The value of a string key in a dict, or NULL. The last one when it is there several times. */
const struct pickle_value *pickle_dict_get(const struct pickle_value *dict, const char *key);
/* A call of a global of this role. */
bool pickle_is_call(const struct pickle_value *value, enum pickle_role role);
bool pickle_is_object(const struct pickle_value *value, enum pickle_role role);
/* A tuple of non-negative integers, or torch.Size of one. At most `capacity`. False otherwise. */
bool pickle_read_sizes(const struct pickle_value *value, uint64_t *out, uint32_t capacity,
                       uint32_t *count);

#endif
