/* SPDX-License-Identifier: MIT
 *
 * The same small task for many numbers, several at once: for tasks that may wait for storage. */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include <stdint.h>

/* Calls task(context, number) once for each number below count, in this order but several at once,
 * and returns when all are done. There are as many threads as keep the processors busy: few where
 * tasks compute, up to 128 where they wait, and 512 of all that
 * run at the same time. Fewer where descriptors are short, of which a task may
 * hold a few. Threads that cannot be started are done without. */
void parallel_run(uint32_t count, void (*task)(void *context, uint32_t number), void *context);

#endif
