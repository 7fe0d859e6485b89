/* SPDX-License-Identifier: MIT */
#include "fs/mount/mount_source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/kernel/inode_table.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/session.h"
#include "fs/kernel/whole.h"

/* `.unshard` itself tells nothing, and its files tell each user what is for him. */
static void set_status_attributes(struct filesystem *filesystem,
                                  const struct unshard_checkpoint *root)
{
    const struct unshard_node *top = unshard_node(root, 0);
    struct stat *directory = &filesystem->status_directory, *file = &filesystem->status_file;
    directory->st_mode = S_IFDIR | 0555;
    directory->st_uid = top->uid;
    directory->st_gid = top->gid;
    file->st_mode = S_IFREG | 0444;
    file->st_uid = geteuid();
    file->st_gid = getegid();
}

/* Without a word about it, one model is prefetched as a whole, of many what is opened. */
static void choose_prefetch(struct mount_run *run, bool one_model)
{
    struct unshard_fetch_options *fetch = &run->options.fetch;
    if (!run->options.prefetch_said)
        fetch->prefetch = one_model ? UNSHARD_PREFETCH_ALL : UNSHARD_PREFETCH_OPEN;
    run->filesystem.prefetch_open = fetch->prefetch == UNSHARD_PREFETCH_OPEN;
}

static int look_at_source(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    struct unshard_place root;
    bool one_model = unshard_tree_is_one_model(filesystem->tree);
    choose_prefetch(run, one_model);
    int result = unshard_tree_look(filesystem->tree, "", &root, &run->error);
    if (result)
        return result;
    filesystem->inodes = inode_table_new(root.layout);
    if (filesystem->inodes)
        result =
            inode_table_inherit(filesystem->inodes, filesystem->keep, session_knows, filesystem);
    if (!filesystem->inodes || result)
        result = unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    if (!result && (one_model || run->options.fetch.prefetch == UNSHARD_PREFETCH_ALL))
        result = whole_survey(filesystem->tree, &filesystem->whole, &run->error);
    if (!result)
        set_status_attributes(filesystem, root.layout);
    unshard_layout_release(root.layout);
    return result;
}

int mount_source_open(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    filesystem->retriever = retriever_new();
    int directory = run->again ? run->succession.handed[HANDED_SOURCE] : -1;
    int result = unshard_tree_open(run->source, directory, &run->options.view, &filesystem->tree,
                                   &run->error);
    if (!result && run->again && run->options.over)
        unshard_tree_cover(filesystem->tree, makedev(0, run->connection));
    return result ? result : look_at_source(run);
}

void mount_source_see(const struct filesystem *filesystem)
{
    struct unshard_place root;
    if (unshard_tree_look(filesystem->tree, "", &root, NULL))
        return;
    inode_table_see_root(filesystem->inodes, root.layout);
    unshard_layout_release(root.layout);
}
