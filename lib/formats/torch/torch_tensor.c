/* SPDX-License-Identifier: MIT
 *
 * One tensor: the arguments of the function that would rebuild it. */
#include "formats/torch/torch_state.h"

#include "base/checked.h"
#include "base/error.h"
#include "formats/gather.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MAX_WRAPPINGS 4 /* a parameter of a parameter... */

struct rebuild {
    const char *path, *name;
    struct arena *arena;
    struct unshard_error *error;
    struct tensor *tensor;
    const struct torch_storage *storage;
    enum dtype dtype;
    uint64_t element_size, offset; /* in elements */
    uint64_t shape[GATHER_MAX_RANK], strides[GATHER_MAX_RANK];
    uint32_t rank;
    bool packed; /* two values in an element: the last dimension is half of what it is */
};

#define malformed(rebuild, format, ...)                                              \
    error_set((rebuild)->error, "malformed-pickle", 0, "%s: tensor \"%s\": " format, \
              (rebuild)->path, (rebuild)->name, __VA_ARGS__)
#define unsupported(rebuild, format, ...)                                                    \
    error_set((rebuild)->error, "unsupported-pickle", ENOTSUP, "%s: tensor \"%s\": " format, \
              (rebuild)->path, (rebuild)->name, __VA_ARGS__)

/* ---- arguments ---------------------------------------------------------------------------------
 */

/* What the last argument says about the bytes: with an entry "conj" or "neg" they are not the
 * values, whatever it is set to (torch/csrc/jit/serialization/pickler.h, setTensorMetadata). */
static int check_flags(struct rebuild *rebuild, const struct pickle_value *flags)
{
    if (flags == NULL || flags->kind == PICKLE_NONE)
        return 0;
    if (flags->kind != PICKLE_DICT)
        return malformed(rebuild, "metadata is a %s", pickle_kind_name(flags->kind));
    if (flags->items->count > 0)
        return unsupported(rebuild, "%s", "it is a conjugate or negative view");
    return 0;
}

static int set_dtype(struct rebuild *rebuild, const struct pickle_value *value)
{
    if (value == NULL || value->kind != PICKLE_GLOBAL ||
        (value->global->role != PICKLE_ROLE_DTYPE &&
         value->global->role != PICKLE_ROLE_OTHER_DTYPE))
        return malformed(rebuild, "%s", "the dtype is none");
    if (value->global->role == PICKLE_ROLE_OTHER_DTYPE)
        return unsupported(rebuild, "%s has no counterpart in safetensors", value->global->name);
    rebuild->dtype = value->global->dtype;
    rebuild->packed = rebuild->dtype == DTYPE_F4;
    rebuild->element_size = rebuild->packed ? 1 : dtype_bits(rebuild->dtype) / 8;
    return 0;
}

static int set_storage(struct rebuild *rebuild, const struct pickle_value *value, bool typed)
{
    if (value == NULL || value->kind != PICKLE_PERSISTENT || value->call->attachment == NULL)
        return malformed(rebuild, "%s", "its storage is none");
    rebuild->storage = value->call->attachment;
    if (!typed)
        return 0;
    if (rebuild->storage->type->role != PICKLE_ROLE_STORAGE)
        return malformed(rebuild, "%s", "its storage has no element type");
    rebuild->dtype = rebuild->storage->type->dtype;
    rebuild->element_size = rebuild->storage->element_size;
    return 0;
}

static int set_geometry(struct rebuild *rebuild, const struct pickle_value *arguments)
{
    const struct pickle_value *offset = pickle_tuple_item(arguments, 1);
    uint32_t strides = 0;
    if (offset == NULL || offset->kind != PICKLE_INT || offset->integer < 0)
        return malformed(rebuild, "%s", "its storage offset is no number of elements");
    rebuild->offset = (uint64_t)offset->integer;
    if (!pickle_read_sizes(pickle_tuple_item(arguments, 2), rebuild->shape, GATHER_MAX_RANK,
                           &rebuild->rank))
        return malformed(rebuild, "its size is no tuple of at most %u numbers", GATHER_MAX_RANK);
    if (!pickle_read_sizes(pickle_tuple_item(arguments, 3), rebuild->strides, GATHER_MAX_RANK,
                           &strides) ||
        strides != rebuild->rank)
        return malformed(rebuild, "its stride is no tuple of %u numbers", rebuild->rank);
    return 0;
}

/* ---- from arguments to bytes -------------------------------------------------------------------
 */

/* The bytes of the tensor, and whether all that its strides reach lies within the storage. */
static int check_bounds(struct rebuild *rebuild, uint64_t *length)
{
    uint64_t count = 1, last = rebuild->offset, reach, end;
    bool fits = true, empty = false;
    for (uint32_t i = 0; i < rebuild->rank; i++) {
        fits = fits && checked_mul(count, rebuild->shape[i], &count);
        empty = empty || rebuild->shape[i] == 0;
    }
    if (!fits || !checked_mul(count, rebuild->element_size, length))
        return malformed(rebuild, "%s", "its number of elements overflows");
    for (uint32_t i = 0; i < rebuild->rank && !empty; i++)
        fits = fits && checked_mul(rebuild->shape[i] - 1, rebuild->strides[i], &reach) &&
               checked_add(last, reach, &last);
    fits = fits && checked_add(last, empty ? 0 : 1, &end) &&
           checked_mul(end, rebuild->element_size, &end) && end <= rebuild->storage->view_bytes;
    if (!fits)
        return malformed(rebuild, "it reaches beyond the %" PRIu64 " bytes of its storage",
                         rebuild->storage->view_bytes);
    return 0;
}

static bool is_contiguous(const struct rebuild *rebuild)
{
    uint64_t expected = 1;
    for (uint32_t i = 0; i < rebuild->rank; i++)
        if (rebuild->shape[i] == 0)
            return true;
    for (uint32_t i = rebuild->rank; i-- > 0;) {
        if (rebuild->shape[i] == 1)
            continue;
        if (rebuild->strides[i] != expected)
            return false;
        expected *= rebuild->shape[i];
    }
    return true;
}

static int set_gather(struct rebuild *rebuild, uint64_t start)
{
    uint64_t source[GATHER_MAX_RANK], target[GATHER_MAX_RANK], stride = rebuild->element_size;
    for (uint32_t i = rebuild->rank; i-- > 0;) {
        target[i] = stride;
        stride *= rebuild->shape[i];
        source[i] = rebuild->shape[i] > 1 ? rebuild->strides[i] * rebuild->element_size : 0;
    }
    struct gather_grid grid = {.rank = rebuild->rank,
                               .source = start,
                               .element_size = rebuild->element_size,
                               .shape = rebuild->shape,
                               .source_strides = source,
                               .target_strides = target};
    struct gather *gather = arena_alloc(rebuild->arena, sizeof *gather);
    struct gather_box *box = arena_alloc(rebuild->arena, sizeof *box);
    uint64_t *strides = arena_alloc_array(rebuild->arena, rebuild->rank, sizeof *strides);
    if (gather == NULL || box == NULL || strides == NULL ||
        gather_box_make(&grid, rebuild->arena, box) != 0)
        return error_no_memory(rebuild->error);
    memcpy(strides, source, rebuild->rank * sizeof *strides);
    *gather = (struct gather){
        .boxes = box, .box_count = 1, .length = rebuild->tensor->length, .strides = strides};
    rebuild->tensor->gather = gather;
    rebuild->tensor->offset = 0;
    return 0;
}

static int deliver(struct rebuild *rebuild)
{
    struct tensor *tensor = rebuild->tensor;
    uint64_t length = 0;
    int result = check_bounds(rebuild, &length);
    if (result != 0)
        return result;
    /* Elements that appear several times (a stride of 0, overlapping rows) make it larger. */
    if (length > rebuild->storage->bytes && length > TORCH_STATE_MAX_EXPANDED)
        return unsupported(
            rebuild, "it is expanded from %" PRIu64 " to %" PRIu64 " bytes, of %" PRIu64 " at most",
            rebuild->storage->bytes, length, TORCH_STATE_MAX_EXPANDED);
    uint64_t *shape = arena_alloc_array(rebuild->arena, rebuild->rank, sizeof *shape);
    if (shape == NULL)
        return error_no_memory(rebuild->error);
    memcpy(shape, rebuild->shape, rebuild->rank * sizeof *shape);
    if (rebuild->packed && (rebuild->rank == 0 ||
                            !checked_mul(shape[rebuild->rank - 1], 2, &shape[rebuild->rank - 1])))
        return malformed(rebuild, "%s", "packed pairs need a last dimension");
    tensor->dtype = rebuild->dtype;
    tensor->rank = rebuild->rank;
    tensor->shape = shape;
    tensor->length = length;
    tensor->gather = NULL;
    tensor->offset = rebuild->storage->offset + rebuild->storage->view_offset +
                     rebuild->offset * rebuild->element_size;
    return is_contiguous(rebuild) ? 0 : set_gather(rebuild, tensor->offset);
}

/* ---- the functions -----------------------------------------------------------------------------
 */

static int rebuild_plain(struct rebuild *rebuild, enum pickle_role role,
                         const struct pickle_value *arguments)
{
    bool v3 = role == PICKLE_ROLE_REBUILD_TENSOR_V3;
    uint32_t count = arguments->items->count, flags = v3 ? 7 : 6;
    uint32_t least = v3 ? 7 : role == PICKLE_ROLE_REBUILD_TENSOR_V2 ? 6 : 4;
    uint32_t most = role == PICKLE_ROLE_REBUILD_TENSOR ? 4 : least + 1;
    if (count < least || count > most)
        return malformed(rebuild, "its rebuild function takes %u to %u arguments, not %u", least,
                         most, count);
    int result = set_storage(rebuild, pickle_tuple_item(arguments, 0), !v3);
    if (result == 0 && v3)
        result = set_dtype(rebuild, pickle_tuple_item(arguments, 6));
    if (result == 0)
        result = set_geometry(rebuild, arguments);
    if (result == 0)
        result = check_flags(rebuild, pickle_tuple_item(arguments, flags));
    return result == 0 ? deliver(rebuild) : result;
}

/* _rebuild_from_type_v2(function, type, arguments, state): a plain tensor with attributes. */
static int rebuild_from_type(struct rebuild *rebuild, const struct pickle_value *arguments)
{
    const struct pickle_value *function = pickle_tuple_item(arguments, 0),
                              *type = pickle_tuple_item(arguments, 1),
                              *inner = pickle_tuple_item(arguments, 2);
    if (arguments->items->count != 4 || function->kind != PICKLE_GLOBAL ||
        type->kind != PICKLE_GLOBAL || inner->kind != PICKLE_TUPLE)
        return malformed(rebuild, "%s", "_rebuild_from_type_v2 takes other arguments");
    if (type->global->role != PICKLE_ROLE_TENSOR_TYPE)
        return unsupported(rebuild, "it is a %s", type->global->name);
    switch (function->global->role) {
    case PICKLE_ROLE_REBUILD_TENSOR:
    case PICKLE_ROLE_REBUILD_TENSOR_V2:
    case PICKLE_ROLE_REBUILD_TENSOR_V3:
        return rebuild_plain(rebuild, function->global->role, inner);
    default:
        return unsupported(rebuild, "it is rebuilt by %s", function->global->name);
    }
}

int torch_state_tensor(const struct pickle_value *value, const char *path, const char *name,
                       struct arena *arena, struct tensor *out, struct unshard_error *error)
{
    struct rebuild rebuild = {
        .path = path, .name = name, .arena = arena, .error = error, .tensor = out};
    for (int depth = 0; depth < MAX_WRAPPINGS && value != NULL && value->kind == PICKLE_CALL;
         depth++) {
        const struct pickle_value *arguments = value->call->arguments;
        switch (value->call->global->role) {
        case PICKLE_ROLE_REBUILD_TENSOR:
        case PICKLE_ROLE_REBUILD_TENSOR_V2:
        case PICKLE_ROLE_REBUILD_TENSOR_V3:
            return rebuild_plain(&rebuild, value->call->global->role, arguments);
        case PICKLE_ROLE_REBUILD_FROM_TYPE:
            return rebuild_from_type(&rebuild, arguments);
        case PICKLE_ROLE_REBUILD_PARAMETER:
            value = pickle_tuple_item(arguments, 0);
            continue;
        case PICKLE_ROLE_OTHER_TENSOR:
            return unsupported(&rebuild, "it is rebuilt by %s and is no plain array",
                               value->call->global->name);
        default:
            break;
        }
        break;
    }
    return malformed(&rebuild, "%s", "it is no tensor");
}
