/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/publisher.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/kernel/apart.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/session.h"

/* The kernel makes the inode a moment after it got the reply to the LOOKUP; a store that is faster
 * finds nothing. That long, and no longer, "nobody has looked it up" is not believed. */
#define NOT_YET_RETRIES 10
#define NOT_YET_WAIT_NS 500000

/* Whether the kernel would keep every page of the range: whole pages, or up to the end of the file.
 */
static bool whole_pages(uint64_t view_size, uint64_t offset, size_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (offset % page || offset > view_size || size > view_size - offset)
        return false;
    return size % page == 0 || offset + size == view_size;
}

static int store(void *context, uint32_t view, uint64_t offset, const void *data, size_t size)
{
    struct filesystem *filesystem = context;
    uint64_t nodeid = inode_table_view_nodeid(filesystem->inodes, view);
    apart_go(session_descriptor(filesystem));
    if (!nodeid)
        return -ENOENT;
    if (!whole_pages(unshard_engine_view_facts(filesystem->engine, view).size, offset, size))
        return -EINVAL;
    /* One buffer in memory: libfuse hands it to writev as it is. */
    struct fuse_bufvec buffer = FUSE_BUFVEC_INIT(size);
    buffer.buf[0].mem = (void *)(uintptr_t)data;
    for (int attempt = 0;; attempt++) {
        buffer.idx = 0;
        buffer.off = 0;
        int result = fuse_lowlevel_notify_store(filesystem->session, nodeid, (off_t)offset, &buffer,
                                                FUSE_BUF_NO_SPLICE);
        if (result != -ENOENT || attempt == NOT_YET_RETRIES ||
            !inode_table_view_known(filesystem->inodes, view))
            return result > 0 ? 0 : result;
        nanosleep(&(struct timespec){.tv_nsec = NOT_YET_WAIT_NS}, NULL);
    }
}

static void drop(void *context, uint32_t view, uint64_t offset, uint64_t size)
{
    struct filesystem *filesystem = context;
    uint64_t nodeid = inode_table_view_nodeid(filesystem->inodes, view);
    if (nodeid)
        fuse_lowlevel_notify_inval_inode(filesystem->session, nodeid, (off_t)offset, (off_t)size);
}

static int retrieve(void *context, uint32_t view, uint64_t offset, void *out, size_t size)
{
    return retriever_take(context, view, offset, out, size);
}

static void changed(void *context, uint32_t view)
{
    struct filesystem *filesystem = context;
    uint64_t nodeid = inode_table_view_nodeid(filesystem->inodes, view);
    if (nodeid)
        fuse_lowlevel_notify_inval_inode(filesystem->session, nodeid, -1, 0);
}

static void write_log(void *context, int syslog_priority, const char *line)
{
    (void)context;
    log_line(syslog_priority, "engine", "%s", line);
}

/* Settable by root at any time, so it is read each time. */
static uint64_t read_ahead_bytes(unsigned connection)
{
    char path[64], text[32];
    snprintf(path, sizeof path, "/sys/class/bdi/0:%u/read_ahead_kb", connection);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    bool got = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return got ? strtoull(text, NULL, 10) * 1024 : 0;
}

static void describe(void *context, struct unshard_mount_facts *out)
{
    const struct filesystem *filesystem = context;
    out->mountpoint = filesystem->mountpoint;
    out->connection = filesystem->connection;
    out->restarts = filesystem->restarts;
    out->restart_time = filesystem->restart_time;
    out->restart_reason = filesystem->restart_reason;
    if (filesystem->connection)
        out->read_ahead_bytes = read_ahead_bytes(filesystem->connection);
}

static void looks(void *context, struct unshard_looks *out)
{
    const struct filesystem *filesystem = context;
    unshard_tree_looks(filesystem->tree, out);
}

struct unshard_publisher publisher_for(struct filesystem *filesystem)
{
    return (struct unshard_publisher){.context = filesystem,
                                      .store = store,
                                      .drop = drop,
                                      .retrieve = filesystem->retriever ? retrieve : NULL,
                                      .changed = changed,
                                      .log = write_log,
                                      .describe = describe,
                                      .looks = looks};
}
