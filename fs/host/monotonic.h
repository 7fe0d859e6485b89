/* SPDX-License-Identifier: MIT
 * Condition variables and deadlines on the clock that never jumps. */
#ifndef FS_HOST_MONOTONIC_H
#define FS_HOST_MONOTONIC_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* A condition whose timed waits take times of monotonic_deadline. */
void monotonic_condition_init(pthread_cond_t *condition);
/* So many milliseconds from now. */
struct timespec monotonic_deadline(unsigned milliseconds);
/* Now. */
int64_t monotonic_ms(void);

#endif
