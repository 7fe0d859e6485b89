/* SPDX-License-Identifier: MIT
 *
 * What the renderings of a status write alike. Pure functions. */
#ifndef STATUS_WORDS_H
#define STATUS_WORDS_H

#include "unshard.h"

#define STATUS_SCHEMA 1U

/* The state that is called so; that of UNKNOWN when none is. NULL is allowed. */
enum unshard_state state_of_name(const char *name);
enum unshard_mount_state mount_state_of_name(const char *name);
/* "strict", "async", "off"; the last one for what is none of these. */
const char *verify_name(enum unshard_verify verify);
enum unshard_verify verify_of_name(const char *name);
/* "all", "follow", "off", "open"; likewise. */
const char *prefetch_name(enum unshard_prefetch prefetch);
enum unshard_prefetch prefetch_of_name(const char *name);
/* "killed", "crashed", "failed", "upgraded": the word itself, which lasts; NULL for what is none of
 * these. NULL is allowed. */
const char *restart_reason_of_name(const char *name);

#define STATUS_TIME_CAPACITY 32
/* "2026-11-24T10:00:00Z", from seconds since the epoch. Returns out. */
const char *status_time(char out[STATUS_TIME_CAPACITY], int64_t seconds);
/* The other way; 0 for what is no such time. NULL is allowed. */
int64_t status_time_of(const char *text);

#define STATUS_NAME_CAPACITY 1024
/* File names may hold any bytes, JSON may not: what is no UTF-8 is shown quoted, everywhere the
 * same. Returns name or out. */
const char *status_name(char out[STATUS_NAME_CAPACITY], const char *name);

#endif
