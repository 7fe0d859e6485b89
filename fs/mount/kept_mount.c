/* SPDX-License-Identifier: MIT */
#include "fs/mount/kept_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/host/monotonic.h"
#include "fs/host/mountpoint.h"
#include "fs/host/service_manager.h"
#include "fs/mount/life.h"
#include "fs/mount/start.h"

/* For a daemon that is ending. */
#define ENDING_MS 5000
#define ENDING_STEP_NS 20000000

enum { PREPARED, KEPT, NAMES };
static const char *const names[NAMES] = {[PREPARED] = "unshard", [KEPT] = "unshard-kept"};

/* ---- what is given -----------------------------------------------------------------------------
 */

/* Which of the three it is. */
static int *place_of(struct kept_mount *kept, int fd)
{
    struct stat about;
    if (fstat(fd, &about))
        return NULL;
    return &kept->handed[S_ISCHR(about.st_mode)   ? HANDED_DEVICE
                         : S_ISDIR(about.st_mode) ? HANDED_SOURCE
                                                  : HANDED_KEEP];
}

static void take(void *context, unsigned name, int fd)
{
    struct kept_mount *kept = context;
    int *place = name == PREPARED ? &kept->prepared : place_of(kept, fd);
    kept->keeps = true;
    if (place && *place < 0)
        *place = fd;
    else
        close(fd);
}

struct kept_mount kept_mount_take(void)
{
    struct kept_mount kept = {.prepared = -1, .keeps = service_manager_keeps()};
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        kept.handed[i] = -1;
    service_manager_given(names, NAMES, take, &kept);
    /* Of one that has ended there is no device. */
    if (kept.handed[HANDED_DEVICE] < 0 && kept_mount_was_served(&kept))
        kept_mount_drop(&kept);
    return kept;
}

bool kept_mount_was_served(const struct kept_mount *kept)
{
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        if (kept->handed[i] >= 0)
            return true;
    return false;
}

void kept_mount_drop(struct kept_mount *kept)
{
    service_manager_drop(names[KEPT]);
    for (unsigned i = 0; i < HANDED_COUNT; i++) {
        if (kept->handed[i] >= 0)
            close(kept->handed[i]);
        kept->handed[i] = -1;
    }
}

/* ---- whether it is what is wanted --------------------------------------------------------------
 */

/* Whether a path leads to a place; as it was found, or as it was given where it cannot be seen. */
static bool leads_to(const char *path, const char *place)
{
    struct unshard_error error;
    char *found = NULL;
    bool leads = mountpoint_resolve(path, &found, &error) == 0 && strcmp(found, place) == 0;
    free(found);
    return leads || strcmp(path, place) == 0;
}

static int check_place(const struct start *start, const char *source, const char *mountpoint,
                       struct unshard_error *error)
{
    if (leads_to(source, start->source) && leads_to(mountpoint, start->mountpoint))
        return 0;
    return unshard_error_set(error, "kept", ESTALE, "it is of %s, mounted on %s", start->source,
                             start->mountpoint);
}

static int check_ended(struct life *life, struct unshard_error *error)
{
    const struct timespec step = {.tv_nsec = ENDING_STEP_NS};
    int64_t end = monotonic_ms() + ENDING_MS;
    while (!life_has_ended(life, life->generation)) {
        if (monotonic_ms() > end)
            return unshard_error_set(error, "kept", EBUSY, "another daemon still serves it");
        nanosleep(&step, NULL);
    }
    return 0;
}

/* Where the mount covers it, its path leads to the mount. */
static int find_source(struct kept_mount *kept, const struct start *start,
                       struct unshard_error *error)
{
    int *source = &kept->handed[HANDED_SOURCE];
    if (strcmp(start->source, start->mountpoint) != 0) {
        if (*source >= 0)
            close(*source);
        *source = open(start->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    return *source >= 0
               ? 0
               : unshard_error_set(error, "kept", ENOENT, "%s is not there", start->source);
}

int kept_mount_find(struct kept_mount *kept, const char *source, const char *mountpoint,
                    struct unshard_error *error)
{
    struct unshard_keep *keep;
    struct start start;
    if (kept->handed[HANDED_DEVICE] < 0 || kept->handed[HANDED_KEEP] < 0)
        return unshard_error_set(error, "kept", ENOENT, "a part of it is missing");
    int result = unshard_keep_look(kept->handed[HANDED_KEEP], life_area_bytes(), &keep, error);
    if (result)
        return result;
    result = start_read(keep, &start);
    if (result)
        unshard_error_set(error, "kept", -result, "how it was started is not to be found");
    if (!result)
        result = check_place(&start, source, mountpoint, error);
    if (!result)
        result = check_ended(life_of(keep), error);
    if (!result)
        result = find_source(kept, &start, error);
    unshard_keep_close(keep);
    return result;
}

/* ---- what is left ------------------------------------------------------------------------------
 */

int kept_mount_prepare(int device, struct unshard_error *error)
{
    return service_manager_keep(names[PREPARED], device, error);
}

/* Of descriptors that mean the same file a manager keeps the first one and its name. */
void kept_mount_leave(const int handed[HANDED_COUNT], bool over_source)
{
    kept_mount_forget();
    service_manager_leave(names[KEPT], handed, over_source ? HANDED_COUNT : HANDED_SOURCE);
}

void kept_mount_forget(void)
{
    for (unsigned i = 0; i < NAMES; i++)
        service_manager_drop(names[i]);
}
