/* SPDX-License-Identifier: MIT
 *
 * The same small task for many numbers, several at once: for tasks that wait for storage. */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include <stdint.h>

#define PARALLEL_IO_THREADS 8U

/* Calls task(context, number) once for each number below count, on at most `threads` threads, this
 * one included, and returns when all are done. Threads that cannot be started are done without. */
void parallel_run(uint32_t count, unsigned threads, void (*task)(void *context, uint32_t number),
                  void *context);

#endif
