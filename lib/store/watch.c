/* SPDX-License-Identifier: MIT */
#include "store/watch.h"

#include "base/lazy_array.h"

#include <errno.h>
#include <stdlib.h>

/* What is told of is looked at all the same, once in so many rounds, and so many at least in one.
 */
#define SAFETY_ROUNDS 600U
#define SAFETY_LEAST 16U

/* What is known of a file. */
enum {
    WATCHED = 1,
    TOLD = 2,   /* the kernel tells of it */
    LOOK = 4,   /* to be looked at as soon as may be */
    ANEW = 8,   /* ... and watched anew, for its path may lead elsewhere */
    SOON = 16,  /* ... before the others: the kernel has told of it, or it was asked for */
    CHOSEN = 32 /* is in this round */
};

struct watch {
    struct notices *notices;
    uint8_t *files; /* flags; as all arrays here, lazy and of `room` elements */
    size_t room;
    uint32_t count;                      /* numbers that have been watched are below */
    uint32_t watched, told, looks, soon; /* how many have the flag */
    bool named;                          /* names are watched, where all files could not be yet */
    uint32_t next_soon, next_look, next_told, next_untold; /* where to go on */
    uint32_t *round, *anew; /* files of this round, and those of them that are watched anew */
    uint32_t round_count, anew_count;
    bool *answers; /* of notices_watch */
};

int watch_create(const struct unshard_checkpoint *checkpoint, const struct notices_options *options,
                 struct watch **out)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return -ENOMEM;
    watch->room = (size_t)checkpoint_file_room(checkpoint) + 1;
    watch->files = lazy_array_new(watch->room, sizeof *watch->files);
    watch->round = lazy_array_new(watch->room, sizeof *watch->round);
    watch->anew = lazy_array_new(watch->room, sizeof *watch->anew);
    watch->answers = lazy_array_new(watch->room, sizeof *watch->answers);
    if (watch->files == NULL || watch->round == NULL || watch->anew == NULL ||
        watch->answers == NULL || notices_create(checkpoint, options, &watch->notices) != 0) {
        watch_free(watch);
        return -ENOMEM;
    }
    *out = watch;
    return 0;
}

void watch_free(struct watch *watch)
{
    if (watch == NULL)
        return;
    notices_free(watch->notices);
    lazy_array_free(watch->files, watch->room, sizeof *watch->files);
    lazy_array_free(watch->round, watch->room, sizeof *watch->round);
    lazy_array_free(watch->anew, watch->room, sizeof *watch->anew);
    lazy_array_free(watch->answers, watch->room, sizeof *watch->answers);
    free(watch);
}

/* ---- what is to be looked at -------------------------------------------------------------------
 */

static void mark(struct watch *watch, uint32_t file, uint8_t flags)
{
    if ((watch->files[file] & WATCHED) == 0)
        return;
    uint8_t news = (uint8_t)(flags & ~watch->files[file]);
    watch->looks += (news & LOOK) != 0;
    watch->soon += (news & SOON) != 0;
    watch->files[file] |= flags;
}

void watch_add(struct watch *watch, uint32_t file)
{
    if (notices_add(watch->notices, file) != 0)
        return; /* memory is short: whoever has it read finds out about it all the same */
    watch->named = false;
    watch->count = file >= watch->count ? file + 1 : watch->count;
    watch->watched += (watch->files[file] & WATCHED) == 0;
    watch->files[file] |= WATCHED;
    mark(watch, file, LOOK | ANEW);
}

void watch_rename(struct watch *watch, uint32_t file, const char *path)
{
    if (notices_rename(watch->notices, file, path) == 0)
        mark(watch, file, LOOK | ANEW);
}

void watch_remove(struct watch *watch, uint32_t file)
{
    uint8_t flags = watch->files[file];
    watch->watched -= (flags & WATCHED) != 0;
    watch->told -= (flags & TOLD) != 0;
    watch->looks -= (flags & LOOK) != 0;
    watch->soon -= (flags & SOON) != 0;
    watch->files[file] = flags & CHOSEN;
    notices_remove(watch->notices, file);
}

void watch_look(struct watch *watch, uint32_t file)
{
    mark(watch, file, LOOK | SOON);
}

void watch_look_at_all(struct watch *watch)
{
    watch->named = false;
    for (uint32_t i = 0; i < watch->count; i++)
        mark(watch, i, LOOK | ANEW);
}

bool watch_is_told(const struct watch *watch, uint32_t file)
{
    return (watch->files[file] & TOLD) != 0;
}

static void note_told(void *context, uint32_t file, bool elsewhere)
{
    mark(context, file, elsewhere ? LOOK | SOON | ANEW : LOOK | SOON);
}

/* ---- a round -----------------------------------------------------------------------------------
 */

static void choose(struct watch *watch, uint32_t file, bool anew)
{
    uint8_t flags = watch->files[file];
    watch->looks -= (flags & LOOK) != 0;
    watch->soon -= (flags & SOON) != 0;
    watch->files[file] = (uint8_t)((flags & (WATCHED | TOLD)) | CHOSEN);
    watch->round[watch->round_count++] = file;
    if (anew || (flags & ANEW) != 0)
        watch->anew[watch->anew_count++] = file;
}

/* Those with `flags` of the flags `of`, at most so many, round about from *next on. */
static void choose_some(struct watch *watch, uint8_t of, uint8_t flags, uint32_t most, bool anew,
                        uint32_t *next)
{
    for (uint32_t left = watch->count; left > 0 && most > 0; left--) {
        uint32_t file = *next;
        *next = file + 1 < watch->count ? file + 1 : 0;
        if ((watch->files[file] & of) != flags)
            continue;
        choose(watch, file, anew);
        most--;
    }
}

/* There are more to be looked at than fit into a round: what happens meanwhile is told. */
static void watch_names(struct watch *watch)
{
    uint32_t count = 0;
    if (watch->named || watch->looks == 0)
        return;
    for (uint32_t i = 0; i < watch->count; i++)
        if ((watch->files[i] & ANEW) != 0)
            watch->anew[watch->anew_count + count++] = i;
    notices_watch_names(watch->notices, watch->anew + watch->anew_count, count);
    watch->named = true;
}

static void watch_anew(struct watch *watch)
{
    notices_watch(watch->notices, watch->anew, watch->anew_count, watch->answers);
    for (uint32_t i = 0; i < watch->anew_count; i++) {
        uint8_t *flags = &watch->files[watch->anew[i]];
        watch->told += watch->answers[i];
        watch->told -= (*flags & TOLD) != 0;
        *flags = (uint8_t)(watch->answers[i] ? *flags | TOLD : *flags & ~TOLD);
    }
}

uint32_t watch_round(struct watch *watch, const uint32_t **files)
{
    uint32_t told = watch->told, untold = watch->watched - watch->told;
    for (uint32_t i = 0; i < watch->round_count; i++)
        watch->files[watch->round[i]] &= (uint8_t)~CHOSEN;
    watch->round_count = watch->anew_count = 0;
    if (!notices_take(watch->notices, note_told, watch))
        watch_look_at_all(watch);
    if (watch->soon > 0)
        choose_some(watch, SOON, SOON, WATCH_AT_ONCE, false, &watch->next_soon);
    if (watch->looks > 0)
        choose_some(watch, LOOK, LOOK, WATCH_AT_ONCE - watch->round_count, false,
                    &watch->next_look);
    if (untold > 0)
        choose_some(watch, WATCHED | TOLD | CHOSEN, WATCHED, WATCH_IN_TURN, true,
                    &watch->next_untold);
    if (told > 0)
        choose_some(watch, TOLD | CHOSEN, TOLD, told / SAFETY_ROUNDS + SAFETY_LEAST, true,
                    &watch->next_told);
    watch_anew(watch);
    watch_names(watch);
    *files = watch->round;
    return watch->round_count;
}
