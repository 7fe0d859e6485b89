/* SPDX-License-Identifier: MIT
 *
 * Reads a pickle without running it. It knows the opcodes that torch.save writes for state dicts
 * (formats/README.md 5.2; Python Lib/pickletools.py for their forms) and refuses every other one,
 * and every global that is not in the table of pickle_globals.c. */
#ifndef FORMATS_TORCH_PICKLE_MACHINE_H
#define FORMATS_TORCH_PICKLE_MACHINE_H

#include "base/arena.h"
#include "formats/torch/pickle_values.h"
#include "unshard.h"

/* Bounds: what a state dict of a few hundred thousand tensors stays well below. */
#define PICKLE_MAX_BYTES (UINT64_C(256) << 20)
#define PICKLE_MAX_VALUES (1U << 24)
/* Memory of the values by bytes of the pickle, and what a small one may have in any case. State
 * dicts take less than 20. */
#define PICKLE_MAX_GROWTH 64U
#define PICKLE_FREE_MEMORY (UINT64_C(1) << 20)
#define PICKLE_MAX_DEPTH (1U << 20) /* of the stack */

struct pickle_input {
    const char *bytes;
    size_t length;
    uint64_t offset;  /* of the bytes in the file, for messages */
    const char *path; /* for messages */
    /* Also the opcodes of protocol 4 and the classes that .metadata of
     * torch.distributed.checkpoint is made of. */
    bool distributed;
};

struct pickle_result {
    struct pickle_value *root;
    size_t consumed;                  /* bytes up to and including STOP */
    struct pickle_value **persistent; /* every persistent id, in order */
    uint32_t persistent_count;
};

/* Reads one pickle. Values live in the arena, their strings in input->bytes. Bounded in time and
 * memory by the bytes of the input: copies of copies are malformed. Errors, with the byte offset in
 * the file and the opcode or global: "hostile-pickle" (-EPERM; a global that would run code of the
 * attacker's choice), "unsupported-pickle" (-ENOTSUP; a global or an opcode that no state dict
 * needs), "malformed-pickle", "truncated" (-ENODATA; the input ends before STOP), "no-memory". */
int pickle_read(const struct pickle_input *input, struct arena *arena, struct pickle_result *out,
                struct unshard_error *error);

#endif
