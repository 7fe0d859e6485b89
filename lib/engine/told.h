/* SPDX-License-Identifier: MIT
 *
 * Layouts of which there is more to tell than of the views that the engine has: notes, problems,
 * components that have no file, and files that cannot be used from the start, of which no view has
 * any byte. Each is told of as long as somebody asks for it. */
#ifndef ENGINE_TOLD_H
#define ENGINE_TOLD_H

#include "base/number_list.h"
#include "unshard.h"

struct told_layout {
    struct unshard_checkpoint *layout; /* held */
    uint32_t asked;                    /* how often it is asked for */
    struct number_list components;     /* that no view shows any of */
    struct number_list files;          /* that have failed, and that no view or component has */
};

struct told {
    struct told_layout *layouts;
    uint32_t count, capacity;
};

/* 0 or -ENOMEM. */
int told_add(struct told *told, struct unshard_checkpoint *layout);
/* Once less. *out: what is to be released, or NULL. */
void told_remove(struct told *told, struct unshard_checkpoint *layout,
                 struct unshard_checkpoint **out);
/* Releases all. */
void told_free(struct told *told);

#endif
