/* SPDX-License-Identifier: MIT
 *
 * Directories that are laid out by themselves: who holds them, and where they are. */
#include "tree/covered.h"
#include "tree/model.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct unshard_checkpoint *unshard_layout_hold(struct unshard_checkpoint *layout)
{
    atomic_fetch_add_explicit(&layout->holders, 1, memory_order_relaxed);
    return layout;
}

void unshard_layout_release(struct unshard_checkpoint *layout)
{
    if (layout != NULL && atomic_fetch_sub_explicit(&layout->holders, 1, memory_order_acq_rel) == 0)
        unshard_checkpoint_close(layout);
}

size_t layout_memory(const struct unshard_checkpoint *layout)
{
    size_t bytes = sizeof *layout + arena_memory(&layout->arena);
    for (uint32_t i = 0; i < layout->view_count; i++)
        bytes += extent_map_memory(&layout->views[i].map);
    return bytes;
}

int checkpoint_place_follow(const struct unshard_checkpoint *place)
{
    struct stat was, now;
    if (place->cover != 0 && covered_is_there(place))
        return 0;
    int fd = open(place->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = 0;
    if (fstat(fd, &now) != 0 || fstat(place->source_fd, &was) != 0)
        result = -errno;
    else if (now.st_dev != was.st_dev || now.st_ino != was.st_ino)
        result = dup3(fd, place->source_fd, O_CLOEXEC) < 0 ? -errno : 1;
    close(fd);
    return result;
}
