/* SPDX-License-Identifier: MIT
 *
 * What the engine is given, and what is taken from it again (admit.c, leave.c). Besides
 * unshard_engine_attach and unshard_engine_detach: */
#ifndef ENGINE_ADMIT_H
#define ENGINE_ADMIT_H

#include "tree/registry.h"

struct unshard_engine;

/* All that the checkpoint has, under the numbers that it has there, for as long as the engine.
 * Before there are threads. 0 or a negative errno. */
int engine_admit_all(struct unshard_engine *engine, const struct unshard_checkpoint *checkpoint);
/* Frees what is kept of all files and views. There are no other threads any more. */
void engine_discard_all(struct unshard_engine *engine);

/* What is kept of a file that nobody knows of any more, or of a view. */
void file_discard(struct unshard_engine *engine, uint32_t file);
void view_discard(struct unshard_engine *engine, uint32_t view);

/* Takes what nobody needs any more away, as far as it is quiet. For the watcher's thread, between
 * its rounds: `gone` is called for each file before its number is free. No lock held. */
void engine_leave(struct unshard_engine *engine, void (*gone)(void *context, uint32_t file),
                  void *context);

#endif
