/* SPDX-License-Identifier: MIT
 *
 * Which source files to look at, to learn whether they have changed, in rounds of a second.
 *
 * Where the kernel tells (notices.h), those are looked at of which it has told something in that
 * second, and of all others a few in turn: for what it does not tell of. Where it does not, all are
 * looked at in turn, so many each second. What is looked at is watched before, so that nothing that
 * happens after the look is missed.
 *
 *   files                   one that has changed is looked at
 *   told of                 in the next round, and in turn within ten minutes
 *   not told of             in turn: up to WATCH_IN_TURN of them in each round
 *   asked for (watch_look)  in the next round
 *
 * For one thread. It may block on storage.
 */
#ifndef STORE_WATCH_H
#define STORE_WATCH_H

#include "store/notices.h"

struct watch;

/* Of files that the kernel does not tell of, so many are looked at in a round: of more, each in
 * turn. */
#define WATCH_IN_TURN 256U
/* Of what is known to have changed, or is asked for, the rest waits for the next round. */
#define WATCH_AT_ONCE 4096U

/* Watches no file yet. The checkpoint, which may get further files, must outlive *out. 0 or
 * -ENOMEM. */
int watch_create(const struct unshard_checkpoint *checkpoint, const struct notices_options *options,
                 struct watch **out);
void watch_free(struct watch *watch);
/* The file is to be watched: the next rounds have it looked at for the first time. What is watched
 * already is looked at once more. */
void watch_add(struct watch *watch, uint32_t file);
/* A file that is watched is found by this path from now on, which must be valid as long. */
void watch_rename(struct watch *watch, uint32_t file, const char *path);
/* It is not to be watched any more; its number may become another one's. */
void watch_remove(struct watch *watch, uint32_t file);
/* A file that is watched is looked at in the next round. Others are ignored. */
void watch_look(struct watch *watch, uint32_t file);
/* All of them are: what their paths lead to may be something else. */
void watch_look_at_all(struct watch *watch);
/* The kernel tells when the file changes, but for exceptions. False of one that is not watched. */
bool watch_is_told(const struct watch *watch, uint32_t file);

/* A second has passed: *files are those to be looked at now, each once. They are the watch's, until
 * the next call. Returns how many. */
uint32_t watch_round(struct watch *watch, const uint32_t **files);

#endif
