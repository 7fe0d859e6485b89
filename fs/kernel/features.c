/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/features.h"

#include <fuse_lowlevel.h>

#define MAX_BACKGROUND 256u

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
static void want(struct fuse_conn_info *connection, unsigned flag)
{
    fuse_set_feature_flag(connection, flag); /* does nothing when the kernel is not capable */
}

static void refuse(struct fuse_conn_info *connection, unsigned flag)
{
    fuse_unset_feature_flag(connection, flag);
}
#else
static void want(struct fuse_conn_info *connection, unsigned flag)
{
    if (connection->capable & flag)
        connection->want |= flag;
}

static void refuse(struct fuse_conn_info *connection, unsigned flag)
{
    connection->want &= ~flag;
}
#endif

void features_negotiate(struct fuse_conn_info *connection)
{
    want(connection, FUSE_CAP_ASYNC_READ);
    want(connection, FUSE_CAP_PARALLEL_DIROPS);
    want(connection, FUSE_CAP_READDIRPLUS);
    want(connection, FUSE_CAP_READDIRPLUS_AUTO);
    /* Stored pages stay until we say otherwise. */
    refuse(connection, FUSE_CAP_AUTO_INVAL_DATA);
    want(connection, FUSE_CAP_EXPLICIT_INVAL_DATA);
    /* Bytes that were checked are in memory; there is nothing to splice. */
    refuse(connection, FUSE_CAP_SPLICE_READ);
    refuse(connection, FUSE_CAP_SPLICE_WRITE);
    refuse(connection, FUSE_CAP_SPLICE_MOVE);
    refuse(connection, FUSE_CAP_WRITEBACK_CACHE);
    /* The kernel derives the largest READ from max_write, also on a read-only file system. */
    connection->max_write = LARGEST_READ;
    connection->max_background = MAX_BACKGROUND;
    connection->congestion_threshold = MAX_BACKGROUND * 3 / 4;
}
