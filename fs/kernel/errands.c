/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/errands.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/forgetting.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/whole.h"

static void end(struct errand *errand)
{
    inode_table_put(errand->filesystem->inodes, errand->inode);
    free(errand->directory);
    free(errand->name);
    free(errand->more);
}

static void release(struct waiting_job *job)
{
    struct errand *errand = (struct errand *)job;
    end(errand);
    free(errand);
}

/* From the directory to what is looked for in there. */
static int find_name(const struct errand *errand, struct unshard_place *place)
{
    if (!errand->name)
        return 0;
    const struct unshard_node *child = unshard_node_child(place->layout, place->node, errand->name);
    if (child)
        place->node = unshard_node_number(place->layout, child);
    return child ? 0 : -ENOENT;
}

/* A directory was looked at: who is concerned by what has changed in it hears of it. */
static void see(struct filesystem *filesystem, const char *directory,
                const struct unshard_place *place)
{
    whole_seen(filesystem, directory, place);
    forgetting_seen(filesystem, directory, place);
}

/* After a look that gave `result`, and the place if that is 0. */
static void answer_look(struct errand *errand, struct fuse_req *request, int result,
                        struct unshard_place *place)
{
    if (result != 0)
        *place = (struct unshard_place){0};
    else
        see(errand->filesystem, errand->directory, place);
    if (result == 0 && !*errand->directory)
        inode_table_see_root(errand->filesystem->inodes, place->layout);
    if (result == 0)
        result = find_name(errand, place);
    struct unshard_checkpoint *held = place->layout;
    errand->answer(errand, request, result, place);
    if (held)
        unshard_layout_release(held);
}

/* Somebody who no longer waits gets no answer, but what was looked at is there for the next one. */
static void look(struct waiting_job *job)
{
    struct errand *errand = (struct errand *)job;
    struct filesystem *filesystem = errand->filesystem;
    struct unshard_place place;
    struct unshard_error error;
    int result = unshard_tree_look(filesystem->tree, errand->directory, &place, &error);
    struct fuse_req *request = waiting_take(filesystem->waiting, job);
    if (request)
        answer_look(errand, request, result, &place);
    else if (result == 0)
        unshard_layout_release(place.layout);
}

/* Somebody looks at the source already, perhaps for ever. */
static atomic_bool root_is_looked_at;

static void look_at_root(struct waiting_job *job)
{
    struct filesystem *filesystem = ((struct errand *)job)->filesystem;
    struct unshard_place place;
    if (unshard_tree_look(filesystem->tree, "", &place, NULL))
        return;
    see(filesystem, "", &place);
    inode_table_see_root(filesystem->inodes, place.layout);
    unshard_layout_release(place.layout);
}

static void release_root(struct waiting_job *job)
{
    root_is_looked_at = false;
    free(job);
}

void errand_look_at_root(struct filesystem *filesystem)
{
    if (atomic_exchange(&root_is_looked_at, true))
        return;
    struct errand *errand = calloc(1, sizeof *errand);
    if (errand) {
        errand->filesystem = filesystem;
        errand->job = (struct waiting_job){
            .work = look_at_root, .release = release_root, .key = WAITING_KEY_ROOT};
        if (waiting_enter(filesystem->waiting, &errand->job, NULL) == 0)
            return;
    }
    free(errand);
    root_is_looked_at = false;
}

/* Enters a file where its path leads now. ESTALE when that is not the file any more. */
static int enter_anew(struct filesystem *filesystem, const struct inode *inode, char *path)
{
    struct unshard_place place;
    char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *directory = strndup(path, slash ? (size_t)(slash - path) : 0);
    int result = directory ? unshard_tree_look(filesystem->tree, directory, &place, NULL) : -ENOMEM;
    free(directory);
    if (result)
        return result;
    const struct unshard_node *node = unshard_node_child(place.layout, place.node, name);
    struct inode *there = NULL;
    if (node) {
        struct unshard_place found = {place.layout, unshard_node_number(place.layout, node)};
        there = inode_table_enter(filesystem->inodes, path, &found);
    }
    inode_table_put(filesystem->inodes, there);
    unshard_layout_release(place.layout);
    return there == inode ? 0 : -ESTALE;
}

int errand_find_again(struct filesystem *filesystem, const struct inode *inode)
{
    struct inode_sight sight;
    int result = inode_table_sight(filesystem->inodes, inode, &sight);
    if (result)
        return result;
    result = enter_anew(filesystem, inode, sight.path);
    inode_sight_release(&sight);
    return result;
}

static int attach_anew(struct filesystem *filesystem, struct inode *inode)
{
    struct unshard_error error;
    int result = errand_find_again(filesystem, inode);
    return result ? result : inode_table_attach(filesystem->inodes, inode, &error);
}

int errand_attach_now(struct filesystem *filesystem, struct inode *inode)
{
    struct unshard_error error;
    int result = inode_table_attach(filesystem->inodes, inode, &error);
    return result == -EAGAIN ? attach_anew(filesystem, inode) : result;
}

static void attach(struct waiting_job *job)
{
    struct errand *errand = (struct errand *)job;
    struct filesystem *filesystem = errand->filesystem;
    int result = errand_attach_now(filesystem, errand->inode);
    struct fuse_req *request = waiting_take(filesystem->waiting, job);
    if (request)
        errand->answer(errand, request, result, NULL);
}

/* Looks at one directory are one after the other, and so are attachments of one file. */
static uint64_t key_of(const struct errand *errand)
{
    if (!errand->directory)
        return errand->inode->id;
    return nodes_path_hash(errand->directory, strlen(errand->directory)) | UINT64_C(1) << 63;
}

static void go(const struct errand *errand, struct fuse_req *request)
{
    struct errand *copy = malloc(sizeof *copy);
    int result = -ENOMEM;
    if (copy) {
        *copy = *errand;
        copy->job = (struct waiting_job){
            .work = errand->directory ? look : attach, .release = release, .key = key_of(errand)};
        result = waiting_enter(errand->filesystem->waiting, &copy->job, request);
    }
    if (result == 0)
        return;
    fuse_reply_err(request, -result);
    free(copy);
    struct errand mine = *errand;
    end(&mine);
}

void errand_begin(const struct errand *errand, struct fuse_req *request)
{
    struct filesystem *filesystem = errand->filesystem;
    struct errand mine = *errand;
    struct unshard_place place;
    int result = -EAGAIN;
    if (mine.directory)
        result = unshard_tree_look_now(filesystem->tree, mine.directory, &place);
    else if (inode_table_view(filesystem->inodes, mine.inode) != UNSHARD_NO_VIEW)
        result = 0;
    if (result == -EAGAIN) {
        go(errand, request);
        return;
    }
    if (mine.directory)
        answer_look(&mine, request, result, &place);
    else
        mine.answer(&mine, request, 0, NULL);
    end(&mine);
}

void errand_refuse(const struct errand *errand, struct fuse_req *request, int error)
{
    struct errand mine = *errand;
    fuse_reply_err(request, error);
    end(&mine);
}

static char *copy_path(const struct errand *errand)
{
    struct inode_sight sight;
    if (errand->inode->kind != UNSHARD_NODE_FILE)
        return strdup(errand->inode->path);
    if (inode_table_sight(errand->filesystem->inodes, errand->inode, &sight))
        return NULL;
    char *path = sight.path;
    sight.path = NULL;
    inode_sight_release(&sight);
    return path;
}

int errand_look_for_inode(struct errand *errand)
{
    char *path = copy_path(errand);
    errand->more = path;
    if (!path)
        return -ENOMEM;
    const char *slash = strrchr(path, '/');
    errand->directory = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    if (*path) /* else it is the source itself */
        errand->name = strdup(slash ? slash + 1 : path);
    return errand->directory && (errand->name || !*path) ? 0 : -ENOMEM;
}
