/* SPDX-License-Identifier: MIT */
#include "formats/torch/torch_storage.h"

#include "base/checked.h"
#include "base/error.h"

#include <errno.h>

static int malformed(const char *path, const char *what, struct unshard_error *error)
{
    return error_set(error, "malformed-pickle", 0, "%s: pickle: persistent id: %s", path, what);
}

static int parse_type(const struct pickle_value *value, const char *path, struct torch_storage *out,
                      struct unshard_error *error)
{
    if (value->kind != PICKLE_GLOBAL)
        return malformed(path, "the storage class is no class", error);
    out->type = value->global;
    switch (out->type->role) {
    case PICKLE_ROLE_STORAGE:
        out->element_size = dtype_bits(out->type->dtype) / 8;
        return 0;
    case PICKLE_ROLE_UNTYPED_STORAGE:
        out->element_size = 1;
        return 0;
    case PICKLE_ROLE_OTHER_STORAGE:
        return error_set(error, "unsupported-pickle", ENOTSUP,
                         "%s: elements of %s.%s have no counterpart in safetensors", path,
                         out->type->module, out->type->name);
    default:
        return malformed(path, "the storage class is no storage class", error);
    }
}

/* A number of elements as bytes. */
static bool element_bytes(const struct pickle_value *value, uint64_t element_size, uint64_t *out)
{
    return value != NULL && value->kind == PICKLE_INT && value->integer >= 0 &&
           checked_mul((uint64_t)value->integer, element_size, out);
}

static int parse_view(const struct pickle_value *view, const char *path, struct torch_storage *out,
                      struct unshard_error *error)
{
    if (view == NULL || view->kind == PICKLE_NONE)
        return 0;
    if (view->kind != PICKLE_TUPLE || view->items->count != 3 ||
        !element_bytes(pickle_tuple_item(view, 1), out->element_size, &out->view_offset) ||
        !element_bytes(pickle_tuple_item(view, 2), out->element_size, &out->view_bytes))
        return malformed(path, "a view is (key, offset, number of elements)", error);
    if (!range_within(out->view_offset, out->view_bytes, out->bytes))
        return malformed(path, "a view goes past its storage", error);
    return 0;
}

int torch_storage_parse(const struct pickle_value *persistent, const char *path,
                        struct torch_storage *out, struct unshard_error *error)
{
    const struct pickle_value *id = persistent->call->arguments;
    *out = (struct torch_storage){0};
    if (id->kind != PICKLE_TUPLE || !pickle_is_string(pickle_tuple_item(id, 0), "storage"))
        return error_set(error, "unsupported-pickle", ENOTSUP,
                         "%s: pickle: a persistent id names something else than a storage", path);
    if (id->items->count != 5 && id->items->count != 6)
        return malformed(path, "not of the form (storage, class, key, location, size)", error);
    int result = parse_type(pickle_tuple_item(id, 1), path, out, error);
    if (result != 0)
        return result;
    const struct pickle_value *key = pickle_tuple_item(id, 2);
    if (key->kind != PICKLE_STRING || key->bytes == 0 || key->bytes > 255)
        return malformed(path, "the key is no short string", error);
    out->key = key->string;
    out->key_length = key->bytes;
    if (!element_bytes(pickle_tuple_item(id, 4), out->element_size, &out->bytes))
        return malformed(path, "the number of elements is none", error);
    out->view_bytes = out->bytes;
    return parse_view(pickle_tuple_item(id, 5), path, out, error);
}

int torch_storages_attach(const struct pickle_result *pickle, const char *path, struct arena *arena,
                          struct torch_storage **out, struct unshard_error *error)
{
    *out = arena_alloc_array(arena, pickle->persistent_count, sizeof **out);
    if (*out == NULL)
        return error_no_memory(error);
    for (uint32_t i = 0; i < pickle->persistent_count; i++) {
        int result = torch_storage_parse(pickle->persistent[i], path, &(*out)[i], error);
        if (result != 0)
            return result;
        pickle->persistent[i]->call->attachment = &(*out)[i];
    }
    return 0;
}
