/* SPDX-License-Identifier: MIT
 *
 * What a status lies in. */
#ifndef STATUS_STATUS_MEMORY_H
#define STATUS_STATUS_MEMORY_H

#include "base/arena.h"
#include "unshard.h"

/* A status of zeros, to be filled in from its arena, which gives at most so many bytes (0: without
 * a limit), and freed by unshard_status_free. NULL when memory is short. */
struct unshard_status *status_new(size_t most_bytes, struct arena **arena);
/* freed(context) is called when it is freed: then nobody looks at what it points to any more. */
void status_on_free(struct unshard_status *status, void (*freed)(void *context), void *context);

#endif
