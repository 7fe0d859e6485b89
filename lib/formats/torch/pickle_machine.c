/* SPDX-License-Identifier: MIT
 *
 * A stack of values, a stack of marks (heights of the value stack) and the memo. Each opcode is one
 * function in the table at the end. */
#include "formats/torch/pickle_machine.h"

#include "base/error.h"
#include "base/little_endian.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct machine {
    const struct pickle_input *input;
    struct arena *arena;
    struct unshard_error *error;
    size_t position, opcode_at; /* of the next byte; of the running opcode */
    const char *opcode_name;
    struct pickle_value **stack, **memo, **persistent;
    size_t *marks;
    size_t stack_count, stack_capacity, memo_count, memo_capacity, mark_count, mark_capacity;
    size_t persistent_count, persistent_capacity;
    size_t floor; /* height at the innermost mark: nothing below may be taken */
    uint32_t value_count;
    size_t arena_before;     /* what the arena had handed out before */
    uint64_t memory_allowed; /* to be handed out */
    size_t charged;          /* for the arrays above */
    bool done;
    int failure; /* of the opcode at hand */
};

/* ---- errors ------------------------------------------------------------------------------------
 */

/* Every failure is noted in the machine, for functions that return a pointer. */
#define fail_at(machine, code, number, format, ...)                                              \
    ((machine)->failure = error_set_at(                                                          \
         (machine)->error, code, number, (machine)->input->offset + (machine)->opcode_at,        \
         "%s: pickle: %s at byte %llu: " format, (machine)->input->path, (machine)->opcode_name, \
         (unsigned long long)((machine)->input->offset + (machine)->opcode_at), __VA_ARGS__))
#define malformed(machine, text) fail_at(machine, "malformed-pickle", 0, "%s", text)

static int no_memory(struct machine *machine)
{
    return machine->failure = error_no_memory(machine->error);
}

/* What the function before has failed with. */
static int failed(const struct machine *machine)
{
    return machine->failure != 0 ? machine->failure : -EINVAL;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* Room for one more element of a malloc'd array of pointers or numbers. */
static int reserve(struct machine *machine, void *array, size_t count, size_t *capacity,
                   size_t size)
{
    void **pointer = array;
    if (count < *capacity)
        return 0;
    size_t larger = *capacity == 0 ? 256 : *capacity * 2, added = (larger - *capacity) * size;
    if (!arena_charge(machine->arena, added))
        return no_memory(machine);
    machine->charged += added;
    void *grown = reallocarray(*pointer, larger, size);
    if (grown == NULL)
        return no_memory(machine);
    *pointer = grown;
    *capacity = larger;
    return 0;
}

static bool takes_too_much(const struct machine *machine)
{
    return machine->arena->bytes - machine->arena_before > machine->memory_allowed;
}

static int unsupported_growth(struct machine *machine)
{
    return fail_at(machine, "unsupported-pickle", ENOTSUP,
                   "it makes more of its %zu bytes than %u times as much, which no state dict does",
                   machine->input->length, PICKLE_MAX_GROWTH);
}

static struct pickle_value *new_value(struct machine *machine, enum pickle_kind kind)
{
    if (machine->value_count == PICKLE_MAX_VALUES || takes_too_much(machine)) {
        unsupported_growth(machine);
        return NULL;
    }
    struct pickle_value *value = arena_alloc(machine->arena, sizeof *value);
    if (value == NULL) {
        no_memory(machine);
        return NULL;
    }
    machine->value_count++;
    value->kind = (uint8_t)kind;
    return value;
}

static int push(struct machine *machine, struct pickle_value *value)
{
    if (value == NULL)
        return failed(machine);
    if (machine->stack_count == PICKLE_MAX_DEPTH)
        return malformed(machine, "the stack is too high");
    if (reserve(machine, &machine->stack, machine->stack_count, &machine->stack_capacity,
                sizeof(struct pickle_value *)) != 0)
        return -ENOMEM;
    machine->stack[machine->stack_count++] = value;
    return 0;
}

/* The value `below` the top, or NULL with an error. */
static struct pickle_value *peek(struct machine *machine, size_t below)
{
    if (machine->stack_count - machine->floor <= below) {
        malformed(machine, "the stack is empty");
        return NULL;
    }
    return machine->stack[machine->stack_count - 1 - below];
}

static struct pickle_value *pop(struct machine *machine)
{
    struct pickle_value *value = peek(machine, 0);
    if (value != NULL)
        machine->stack_count--;
    return value;
}

/* ---- input -------------------------------------------------------------------------------------
 */

/* The next `length` bytes, or NULL with an error. */
static const char *take(struct machine *machine, uint64_t length)
{
    const struct pickle_input *input = machine->input;
    if (length > input->length - machine->position) {
        fail_at(machine, "truncated", ENODATA, "%s", "the pickle ends here");
        return NULL;
    }
    const char *bytes = input->bytes + machine->position;
    machine->position += length;
    return bytes;
}

/* Bytes up to a line feed, which is taken too. */
static const char *take_line(struct machine *machine, size_t *length)
{
    const struct pickle_input *input = machine->input;
    const char *start = input->bytes + machine->position;
    const char *end = memchr(start, '\n', input->length - machine->position);
    if (end == NULL) {
        fail_at(machine, "truncated", ENODATA, "%s", "the pickle ends here");
        return NULL;
    }
    *length = (size_t)(end - start);
    machine->position += *length + 1;
    return start;
}

/* ---- atoms -------------------------------------------------------------------------------------
 */

static int op_proto(struct machine *machine, int most)
{
    const char *version = take(machine, 1);
    if (version == NULL)
        return failed(machine);
    if (machine->opcode_at != 0)
        return malformed(machine, "not at the beginning");
    int limit = machine->input->distributed ? 5 : most;
    if ((unsigned char)*version > limit)
        return fail_at(machine, "unsupported-pickle", ENOTSUP,
                       "protocol %d is not what torch.save writes", (unsigned char)*version);
    return 0;
}

static int op_frame(struct machine *machine, int unused)
{
    (void)unused;
    const char *length = take(machine, 8);
    if (length == NULL)
        return failed(machine);
    if (load_le64(length) > machine->input->length - machine->position)
        return malformed(machine, "the frame goes past the end");
    return 0;
}

static int op_none(struct machine *machine, int unused)
{
    (void)unused;
    return push(machine, new_value(machine, PICKLE_NONE));
}

static int op_bool(struct machine *machine, int truth)
{
    struct pickle_value *value = new_value(machine, PICKLE_BOOL);
    if (value != NULL)
        value->boolean = truth != 0;
    return push(machine, value);
}

/* An integer of 1, 2 (unsigned) or 4 (signed) bytes. */
static int op_int(struct machine *machine, int width)
{
    const char *bytes = take(machine, (uint64_t)width);
    if (bytes == NULL)
        return failed(machine);
    struct pickle_value *value = new_value(machine, PICKLE_INT);
    if (value != NULL)
        value->integer = width == 1   ? (unsigned char)*bytes
                         : width == 2 ? load_le16(bytes)
                                      : (int32_t)load_le32(bytes);
    return push(machine, value);
}

/* LONG1: two's complement of up to 255 bytes. */
static int op_long(struct machine *machine, int unused)
{
    (void)unused;
    const char *count = take(machine, 1);
    const char *bytes = count == NULL ? NULL : take(machine, (unsigned char)*count);
    if (bytes == NULL)
        return failed(machine);
    uint8_t length = (unsigned char)*count;
    struct pickle_value *value = new_value(machine, length <= 8 ? PICKLE_INT : PICKLE_BIG_INT);
    if (value == NULL)
        return push(machine, value);
    if (length > 8) {
        value->bytes = length;
        value->string = bytes;
    } else {
        uint64_t number = length > 0 && (signed char)bytes[length - 1] < 0 ? UINT64_MAX : 0;
        for (int i = length - 1; i >= 0; i--)
            number = number << 8 | (unsigned char)bytes[i];
        value->integer = (int64_t)number;
    }
    return push(machine, value);
}

static int op_float(struct machine *machine, int unused)
{
    (void)unused;
    const char *bytes = take(machine, 8);
    if (bytes == NULL)
        return failed(machine);
    uint64_t bits = __builtin_bswap64(load_le64(bytes));
    struct pickle_value *value = new_value(machine, PICKLE_FLOAT);
    if (value != NULL)
        memcpy(&value->number, &bits, sizeof bits);
    return push(machine, value);
}

/* A string whose length is a number of `width` bytes. */
static int op_string(struct machine *machine, int width)
{
    const char *prefix = take(machine, (uint64_t)width);
    if (prefix == NULL)
        return failed(machine);
    uint64_t length = width == 1   ? (unsigned char)*prefix
                      : width == 4 ? load_le32(prefix)
                                   : load_le64(prefix);
    if (length > PICKLE_MAX_BYTES)
        return fail_at(machine, "malformed-pickle", 0, "a string of %llu bytes",
                       (unsigned long long)length);
    const char *bytes = take(machine, length);
    if (bytes == NULL)
        return failed(machine);
    struct pickle_value *value = new_value(machine, PICKLE_STRING);
    if (value != NULL) {
        value->bytes = (uint32_t)length;
        value->string = bytes;
    }
    return push(machine, value);
}

/* ---- containers --------------------------------------------------------------------------------
 */

static struct pickle_value *new_container(struct machine *machine, enum pickle_kind kind,
                                          struct pickle_value *const *values, size_t count)
{
    struct pickle_value *value = new_value(machine, kind);
    if (value == NULL)
        return NULL;
    value->items = arena_alloc(machine->arena, sizeof *value->items);
    if (value->items != NULL && count > 0) {
        value->items->values =
            arena_alloc_array(machine->arena, count, sizeof *value->items->values);
        value->items->count = value->items->capacity = (uint32_t)count;
    }
    if (value->items == NULL || (count > 0 && value->items->values == NULL)) {
        no_memory(machine);
        return NULL;
    }
    if (count > 0)
        memcpy(value->items->values, values, count * sizeof(struct pickle_value *));
    return value;
}

/* The arena does not take back what is outgrown: doubling keeps that below what is used. */
static int append_items(struct machine *machine, struct pickle_items *items,
                        struct pickle_value *const *values, size_t count)
{
    if (count > PICKLE_MAX_VALUES || items->count > 2 * PICKLE_MAX_VALUES ||
        takes_too_much(machine))
        return unsupported_growth(machine);
    if (items->count + count > items->capacity) {
        size_t capacity = items->capacity * (size_t)2;
        if (capacity < items->count + count)
            capacity = items->count + count;
        struct pickle_value **grown = arena_alloc_array(machine->arena, capacity, sizeof *grown);
        if (grown == NULL)
            return no_memory(machine);
        if (items->count > 0)
            memcpy(grown, items->values, items->count * sizeof(struct pickle_value *));
        items->values = grown;
        items->capacity = (uint32_t)capacity;
    }
    if (count > 0)
        memcpy(items->values + items->count, values, count * sizeof(struct pickle_value *));
    items->count += (uint32_t)count;
    return 0;
}

static int op_mark(struct machine *machine, int unused)
{
    (void)unused;
    if (machine->mark_count == PICKLE_MAX_DEPTH)
        return malformed(machine, "too many marks");
    if (reserve(machine, &machine->marks, machine->mark_count, &machine->mark_capacity,
                sizeof *machine->marks) != 0)
        return -ENOMEM;
    machine->marks[machine->mark_count++] = machine->floor;
    machine->floor = machine->stack_count;
    return 0;
}

/* Takes the values since the innermost mark off the stack (they stay readable until the next push).
 */
static int pop_mark(struct machine *machine, struct pickle_value ***values, size_t *count)
{
    if (machine->mark_count == 0)
        return malformed(machine, "no mark");
    *count = machine->stack_count - machine->floor;
    *values = *count > 0 ? machine->stack + machine->floor : NULL;
    machine->stack_count = machine->floor;
    machine->floor = machine->marks[--machine->mark_count];
    return 0;
}

static int op_empty(struct machine *machine, int kind)
{
    return push(machine, new_container(machine, (enum pickle_kind)kind, NULL, 0));
}

static int op_tuple(struct machine *machine, int unused)
{
    (void)unused;
    struct pickle_value **values = NULL;
    size_t count = 0;
    int result = pop_mark(machine, &values, &count);
    return result != 0 ? result
                       : push(machine, new_container(machine, PICKLE_TUPLE, values, count));
}

static int op_short_tuple(struct machine *machine, int count)
{
    if (peek(machine, (size_t)count - 1) == NULL)
        return failed(machine);
    machine->stack_count -= (size_t)count;
    return push(machine, new_container(machine, PICKLE_TUPLE, machine->stack + machine->stack_count,
                                       (size_t)count));
}

/* Adds values to the container on top of the stack, which must be of this kind. */
static int extend(struct machine *machine, enum pickle_kind kind,
                  struct pickle_value *const *values, size_t count)
{
    struct pickle_value *container = peek(machine, 0);
    if (container == NULL)
        return failed(machine);
    if (container->kind != kind)
        return fail_at(machine, "malformed-pickle", 0, "to a %s",
                       pickle_kind_name(container->kind));
    return append_items(machine, container->items, values, count);
}

static int op_append(struct machine *machine, int unused)
{
    (void)unused;
    struct pickle_value *item = pop(machine);
    return item == NULL ? failed(machine) : extend(machine, PICKLE_LIST, &item, 1);
}

/* APPENDS, ADDITEMS, SETITEMS: all since the mark. */
static int op_extend(struct machine *machine, int kind)
{
    struct pickle_value **values = NULL;
    size_t count = 0;
    int result = pop_mark(machine, &values, &count);
    if (result != 0)
        return result;
    if (kind == PICKLE_DICT && count % 2 != 0)
        return malformed(machine, "a key without a value");
    return extend(machine, (enum pickle_kind)kind, values, count);
}

static int op_setitem(struct machine *machine, int unused)
{
    (void)unused;
    if (peek(machine, 1) == NULL)
        return failed(machine);
    machine->stack_count -= 2;
    return extend(machine, PICKLE_DICT, machine->stack + machine->stack_count, 2);
}

/* ---- memo --------------------------------------------------------------------------------------
 */

/* Picklers number the memo from 0 (some from 1) without gaps. */
static int put(struct machine *machine, uint64_t number)
{
    struct pickle_value *value = peek(machine, 0);
    if (value == NULL)
        return failed(machine);
    if (number > machine->memo_count + 1)
        return fail_at(machine, "malformed-pickle", 0, "slot %llu of a memo of %zu",
                       (unsigned long long)number, machine->memo_count);
    while (machine->memo_count <= number) {
        if (reserve(machine, &machine->memo, machine->memo_count, &machine->memo_capacity,
                    sizeof(struct pickle_value *)) != 0)
            return -ENOMEM;
        machine->memo[machine->memo_count++] = NULL;
    }
    machine->memo[number] = value;
    return 0;
}

static int op_put(struct machine *machine, int width)
{
    const char *number = take(machine, (uint64_t)width);
    if (number == NULL)
        return failed(machine);
    return put(machine, width == 1 ? (unsigned char)*number : load_le32(number));
}

static int op_memoize(struct machine *machine, int unused)
{
    (void)unused;
    return put(machine, machine->memo_count);
}

static int op_get(struct machine *machine, int width)
{
    const char *bytes = take(machine, (uint64_t)width);
    if (bytes == NULL)
        return failed(machine);
    uint64_t number = width == 1 ? (unsigned char)*bytes : load_le32(bytes);
    if (number >= machine->memo_count || machine->memo[number] == NULL)
        return fail_at(machine, "malformed-pickle", 0, "slot %llu of a memo of %zu",
                       (unsigned long long)number, machine->memo_count);
    return push(machine, machine->memo[number]);
}

/* ---- globals and calls -------------------------------------------------------------------------
 */

static int push_global(struct machine *machine, const char *module, size_t module_length,
                       const char *name, size_t name_length)
{
    char quoted_module[96], quoted_name[96];
    const struct pickle_global *global =
        pickle_global_find(module, module_length, name, name_length, machine->input->distributed);
    if (global == NULL) {
        error_quote(quoted_module, sizeof quoted_module, module, module_length);
        error_quote(quoted_name, sizeof quoted_name, name, name_length);
        if (pickle_global_is_hostile(module, module_length, name, name_length))
            return fail_at(machine, "hostile-pickle", EPERM,
                           "it names %s.%s, which runs code when it is loaded; nothing of it is "
                           "run here, and nothing else should load it",
                           quoted_module, quoted_name);
        return fail_at(machine, "unsupported-pickle", ENOTSUP,
                       "it names %s.%s, which no state dict needs", quoted_module, quoted_name);
    }
    struct pickle_value *value = new_value(machine, PICKLE_GLOBAL);
    if (value != NULL)
        value->global = global;
    return push(machine, value);
}

static int op_global(struct machine *machine, int unused)
{
    (void)unused;
    size_t module_length, name_length;
    const char *module = take_line(machine, &module_length);
    const char *name = module == NULL ? NULL : take_line(machine, &name_length);
    if (name == NULL)
        return failed(machine);
    return push_global(machine, module, module_length, name, name_length);
}

static int op_stack_global(struct machine *machine, int unused)
{
    (void)unused;
    struct pickle_value *module = peek(machine, 1), *name = peek(machine, 0);
    if (module == NULL || name == NULL)
        return failed(machine);
    if (module->kind != PICKLE_STRING || name->kind != PICKLE_STRING)
        return malformed(machine, "the names are no strings");
    machine->stack_count -= 2;
    return push_global(machine, module->string, module->bytes, name->string, name->bytes);
}

static struct pickle_value *new_call(struct machine *machine, enum pickle_kind kind,
                                     const struct pickle_global *global,
                                     struct pickle_value *arguments)
{
    struct pickle_value *value = new_value(machine, kind);
    if (value == NULL)
        return NULL;
    value->call = arena_alloc(machine->arena, sizeof *value->call);
    if (value->call == NULL) {
        no_memory(machine);
        return NULL;
    }
    value->call->global = global;
    value->call->arguments = arguments;
    return value;
}

/* An OrderedDict of nothing, or of a list of pairs. */
static int push_ordered_dict(struct machine *machine, const struct pickle_value *arguments)
{
    struct pickle_value *dict = new_container(machine, PICKLE_DICT, NULL, 0);
    const struct pickle_value *pairs = pickle_tuple_item(arguments, 0);
    if (dict == NULL)
        return failed(machine);
    if (arguments->items->count > 1 || (pairs != NULL && pairs->kind != PICKLE_LIST))
        return malformed(machine, "OrderedDict takes a list of pairs");
    for (uint32_t i = 0; pairs != NULL && i < pairs->items->count; i++) {
        const struct pickle_value *pair = pairs->items->values[i];
        if ((pair->kind != PICKLE_TUPLE && pair->kind != PICKLE_LIST) || pair->items->count != 2)
            return malformed(machine, "OrderedDict takes a list of pairs");
        int result = append_items(machine, dict->items, pair->items->values, 2);
        if (result != 0)
            return result;
    }
    return push(machine, dict);
}

/* REDUCE and NEWOBJ: a global and a tuple of arguments become a value that says so. */
static int op_call(struct machine *machine, int use)
{
    struct pickle_value *callee = peek(machine, 1), *arguments = peek(machine, 0);
    if (callee == NULL || arguments == NULL)
        return failed(machine);
    if (arguments->kind != PICKLE_TUPLE)
        return malformed(machine, "the arguments are no tuple");
    if (callee->kind != PICKLE_GLOBAL)
        return fail_at(machine, "hostile-pickle", EPERM,
                       "it calls a %s; nothing of it is run here, and nothing else should load it",
                       pickle_kind_name(callee->kind));
    const struct pickle_global *global = callee->global;
    if (!(global->uses & use))
        return fail_at(machine, "unsupported-pickle", ENOTSUP, "it calls %s.%s", global->module,
                       global->name);
    machine->stack_count -= 2;
    if (global->role == PICKLE_ROLE_ORDERED_DICT)
        return push_ordered_dict(machine, arguments);
    if (global->role == PICKLE_ROLE_GETATTR) {
        const struct pickle_value *of = pickle_tuple_item(arguments, 0);
        if (arguments->items->count != 2 || of->kind != PICKLE_GLOBAL ||
            of->global->role != PICKLE_ROLE_MEMORY_FORMAT)
            return fail_at(machine, "hostile-pickle", EPERM, "%s",
                           "it asks for an attribute of something else than a memory format; "
                           "nothing of it is run here, and nothing else should load it");
    }
    return push(machine, new_call(machine, use == PICKLE_REDUCE ? PICKLE_CALL : PICKLE_OBJECT,
                                  global, arguments));
}

/* The state of a dict (an OrderedDict's attributes) says nothing about tensors. */
static int op_build(struct machine *machine, int unused)
{
    (void)unused;
    struct pickle_value *target = peek(machine, 1), *state = peek(machine, 0);
    if (target == NULL || state == NULL)
        return failed(machine);
    machine->stack_count--;
    if (target->kind == PICKLE_DICT)
        return 0;
    if (target->kind != PICKLE_OBJECT || target->call->state != NULL)
        return fail_at(machine, "unsupported-pickle", ENOTSUP, "it sets the state of a %s",
                       pickle_kind_name(target->kind));
    target->call->state = state;
    return 0;
}

static int op_persistent(struct machine *machine, int unused)
{
    (void)unused;
    struct pickle_value *id = pop(machine);
    if (id == NULL)
        return failed(machine);
    struct pickle_value *value = new_call(machine, PICKLE_PERSISTENT, NULL, id);
    if (value == NULL)
        return failed(machine);
    if (reserve(machine, &machine->persistent, machine->persistent_count,
                &machine->persistent_capacity, sizeof(struct pickle_value *)) != 0)
        return -ENOMEM;
    machine->persistent[machine->persistent_count++] = value;
    return push(machine, value);
}

static int op_stop(struct machine *machine, int unused)
{
    (void)unused;
    if (machine->mark_count != 0 || machine->stack_count != 1)
        return malformed(machine, "the stack does not hold one value");
    machine->done = true;
    return 0;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

struct opcode {
    const char *name;
    int (*run)(struct machine *machine, int argument);
    int argument;
    bool distributed; /* of .metadata only */
};

static const struct opcode opcodes[256] = {
    [0x80] = {"PROTO", op_proto, 2, false},
    [0x95] = {"FRAME", op_frame, 0, true},
    ['.'] = {"STOP", op_stop, 0, false},
    ['c'] = {"GLOBAL", op_global, 0, false},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0, true},
    ['R'] = {"REDUCE", op_call, PICKLE_REDUCE, false},
    [0x81] = {"NEWOBJ", op_call, PICKLE_NEWOBJ, false},
    ['b'] = {"BUILD", op_build, 0, false},
    ['Q'] = {"BINPERSID", op_persistent, 0, false},
    [')'] = {"EMPTY_TUPLE", op_empty, PICKLE_TUPLE, false},
    [0x85] = {"TUPLE1", op_short_tuple, 1, false},
    [0x86] = {"TUPLE2", op_short_tuple, 2, false},
    [0x87] = {"TUPLE3", op_short_tuple, 3, false},
    ['t'] = {"TUPLE", op_tuple, 0, false},
    ['('] = {"MARK", op_mark, 0, false},
    ['}'] = {"EMPTY_DICT", op_empty, PICKLE_DICT, false},
    [']'] = {"EMPTY_LIST", op_empty, PICKLE_LIST, false},
    [0x8f] = {"EMPTY_SET", op_empty, PICKLE_SET, false},
    ['a'] = {"APPEND", op_append, 0, false},
    ['e'] = {"APPENDS", op_extend, PICKLE_LIST, false},
    [0x90] = {"ADDITEMS", op_extend, PICKLE_SET, true},
    ['s'] = {"SETITEM", op_setitem, 0, false},
    ['u'] = {"SETITEMS", op_extend, PICKLE_DICT, false},
    ['N'] = {"NONE", op_none, 0, false},
    [0x88] = {"NEWTRUE", op_bool, 1, false},
    [0x89] = {"NEWFALSE", op_bool, 0, false},
    ['J'] = {"BININT", op_int, 4, false},
    ['K'] = {"BININT1", op_int, 1, false},
    ['M'] = {"BININT2", op_int, 2, false},
    [0x8a] = {"LONG1", op_long, 0, false},
    ['G'] = {"BINFLOAT", op_float, 0, false},
    ['X'] = {"BINUNICODE", op_string, 4, false},
    [0x8c] = {"SHORT_BINUNICODE", op_string, 1, true},
    [0x8d] = {"BINUNICODE8", op_string, 8, true},
    ['U'] = {"SHORT_BINSTRING", op_string, 1, false},
    ['q'] = {"BINPUT", op_put, 1, false},
    ['r'] = {"LONG_BINPUT", op_put, 4, false},
    [0x94] = {"MEMOIZE", op_memoize, 0, true},
    ['h'] = {"BINGET", op_get, 1, false},
    ['j'] = {"LONG_BINGET", op_get, 4, false},
};

static int step(struct machine *machine)
{
    machine->opcode_at = machine->position;
    machine->opcode_name = "the next opcode";
    const char *byte = take(machine, 1);
    if (byte == NULL)
        return failed(machine);
    const struct opcode *opcode = &opcodes[(unsigned char)*byte];
    if (opcode->run == NULL || (opcode->distributed && !machine->input->distributed)) {
        machine->opcode_name = "an opcode";
        return fail_at(machine, "unsupported-pickle", ENOTSUP,
                       "0x%02x (%s) is none that torch.save writes for a state dict",
                       (unsigned char)*byte, opcode->name != NULL ? opcode->name : "not known");
    }
    machine->opcode_name = opcode->name;
    return opcode->run(machine, opcode->argument);
}

static int deliver(struct machine *machine, struct pickle_result *out)
{
    size_t count = machine->persistent_count;
    struct pickle_value **persistent =
        arena_alloc_array(machine->arena, count, sizeof(struct pickle_value *));
    if (persistent == NULL)
        return no_memory(machine);
    if (count > 0)
        memcpy(persistent, machine->persistent, count * sizeof(struct pickle_value *));
    *out = (struct pickle_result){.root = machine->stack[0],
                                  .consumed = machine->position,
                                  .persistent = persistent,
                                  .persistent_count = (uint32_t)count};
    return 0;
}

int pickle_read(const struct pickle_input *input, struct arena *arena, struct pickle_result *out,
                struct unshard_error *error)
{
    struct machine machine = {.input = input, .arena = arena, .error = error};
    machine.arena_before = arena->bytes;
    machine.memory_allowed = PICKLE_FREE_MEMORY + PICKLE_MAX_GROWTH * (uint64_t)input->length;
    int result = 0;
    *out = (struct pickle_result){0};
    while (result == 0 && !machine.done)
        result = step(&machine);
    if (result == 0)
        result = deliver(&machine, out);
    free(machine.stack);
    free(machine.memo);
    free(machine.marks);
    free(machine.persistent);
    arena_discharge(arena, machine.charged);
    return result;
}
