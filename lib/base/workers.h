/* SPDX-License-Identifier: MIT
 *
 * Threads for a long piece of work, and a look at it now and then meanwhile. */
#ifndef BASE_WORKERS_H
#define BASE_WORKERS_H

/* Runs work(context) on `count` threads (at most WORKERS_MAX) and returns when all have returned.
 * tick(context) is called on this thread five times a second meanwhile and once at the end. Fewer
 * threads do the same work when not all can be started. 0, or a negative errno when none could. */
#define WORKERS_MAX 256U
int workers_run(unsigned count, void (*work)(void *context), void (*tick)(void *context),
                void *context);

#endif
