/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/status_reader.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/host/process_groups.h"

int status_reader_find(struct fuse_req *request, struct status_reader *out)
{
    const struct fuse_ctx *context = fuse_req_ctx(request);
    gid_t *groups = NULL;
    *out = (struct status_reader){.user = {.uid = context->uid}};
    out->all = context->uid == 0 || context->uid == geteuid();
    if (out->all)
        return 0;
    out->user.gid = context->gid;
    int result = process_groups_read(context->pid, context->uid, context->gid, &groups,
                                     &out->user.group_count);
    out->user.groups = groups;
    out->user.groups_known = result == 0;
    return result == -ENOMEM ? result : 0;
}

void status_reader_free(struct status_reader *reader)
{
    free((gid_t *)reader->user.groups);
    reader->user.groups = NULL;
}

bool status_reader_is(const struct status_reader *reader, const struct status_reader *other)
{
    const struct unshard_user *a = &reader->user, *b = &other->user;
    return a->uid == b->uid && reader->all == other->all && a->gid == b->gid &&
           a->groups_known == b->groups_known && a->group_count == b->group_count &&
           (a->group_count == 0 ||
            memcmp(a->groups, b->groups, a->group_count * sizeof *a->groups) == 0);
}

struct for_whom {
    const struct filesystem *filesystem;
    const struct unshard_user *user;
};

static bool may_list(void *context, const char *directory)
{
    const struct for_whom *whom = context;
    return unshard_tree_may_list(whom->filesystem->tree, directory, whom->user);
}

struct unshard_status *status_reader_take(const struct filesystem *filesystem,
                                          const struct status_reader *reader)
{
    struct for_whom whom = {filesystem, &reader->user};
    struct unshard_audience audience = {may_list, &whom};
    return reader->all ? unshard_status_take(filesystem->engine, UNSHARD_NO_VIEW)
                       : unshard_status_take_for(filesystem->engine, &audience);
}
