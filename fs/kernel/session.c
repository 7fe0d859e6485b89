/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/session.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/kernel/apart.h"
#include "fs/kernel/journal.h"
#include "fs/kernel/operations.h"
#include "fs/kernel/retriever.h"

/* No operation waits, so this many answer all; each has a buffer of 1 MiB. */
#define LOOP_THREADS 4

/* What libfuse said last; while mounting there is one thread, and this is the reason of a failure.
 */
static char last_message[256];

static void log_libfuse(enum fuse_log_level level, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    log_line_v((int)level, "libfuse", format, again);
    va_end(again);
}

static void keep_libfuse(enum fuse_log_level level, const char *format, va_list arguments)
{
    (void)level;
    vsnprintf(last_message, sizeof last_message, format, arguments);
    last_message[strcspn(last_message, "\n")] = '\0';
}

/* The name in a list of mount options: commas and backslashes escaped. */
static char *escape_option(const char *name)
{
    char *escaped = malloc(2 * strlen(name) + 1), *end = escaped;
    if (!escaped)
        return NULL;
    for (; *name; name++) {
        if (*name == ',' || *name == '\\')
            *end++ = '\\';
        *end++ = *name;
    }
    *end = '\0';
    return escaped;
}

static char *mount_option_list(const struct session_options *options)
{
    char *list = NULL, *fsname = escape_option(options->fsname);
    if (!fsname)
        return NULL;
    if (asprintf(&list, "ro,fsname=%s,subtype=unshard,default_permissions%s%s", fsname,
                 options->allow_other ? ",allow_other" : "",
                 options->allow_root ? ",allow_root" : "") < 0)
        list = NULL;
    free(fsname);
    return list;
}

static struct fuse_session *new_session(struct filesystem *filesystem,
                                        const struct session_options *options)
{
    struct fuse_session *session = NULL;
    struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
    char *list = mount_option_list(options);
    if (list && fuse_opt_add_arg(&arguments, "unshard") == 0 &&
        fuse_opt_add_arg(&arguments, "-o") == 0 && fuse_opt_add_arg(&arguments, list) == 0)
        session = fuse_session_new(&arguments, operations_table(), sizeof(struct fuse_lowlevel_ops),
                                   filesystem);
    fuse_opt_free_args(&arguments);
    free(list);
    return session;
}

/* ---- what goes over the descriptor goes through the journal ------------------------------------
 */

static ssize_t read_request(int device, void *buffer, size_t length, void *userdata)
{
    struct filesystem *filesystem = userdata;
    ssize_t got;
    do
        got = journal_read(filesystem->journal, device, buffer, length);
    while (got > 0 && !retriever_unstamp(buffer, filesystem->generation));
    if (got > 0)
        greeting_heard(&filesystem->greeting, buffer, (size_t)got);
    return got;
}

static ssize_t write_reply(int device, struct iovec *pieces, int count, void *userdata)
{
    struct filesystem *filesystem = userdata;
    if (greeting_answered(&filesystem->greeting, pieces, count))
        return (ssize_t)((const struct fuse_out_header *)pieces[0].iov_base)->len;
    retriever_stamp(pieces, count, filesystem->generation);
    bool notifies = ((const struct fuse_out_header *)pieces[0].iov_base)->unique == 0;
    return journal_write(filesystem->journal, notifies ? apart_device(device) : device, pieces,
                         count);
}

/* Without a journal libfuse does it by itself. */
static int use_journal(struct filesystem *filesystem, int device)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    return filesystem->journal ? fuse_session_custom_io(filesystem->session, &io, device) : 0;
}

int session_open(struct filesystem *filesystem, const struct session_options *options,
                 struct unshard_error *error)
{
    char quoted[256];
    unshard_quote(quoted, sizeof quoted, options->mountpoint, strlen(options->mountpoint));
    snprintf(last_message, sizeof last_message,
             "the FUSE library does not say why; is /dev/fuse there, and may this user mount?");
    fuse_set_log_func(keep_libfuse);
    filesystem->session = new_session(filesystem, options);
    if (!filesystem->session)
        return unshard_error_set(error, "mount", EINVAL, "cannot start a FUSE session: %s",
                                 last_message);
    if (fuse_session_mount(filesystem->session, options->mountpoint)) {
        session_close(filesystem);
        return unshard_error_set(error, "mount", EIO, "cannot mount on %s: %s", quoted,
                                 last_message);
    }
    int result = use_journal(filesystem, fuse_session_fd(filesystem->session));
    if (result) {
        session_unmount(filesystem);
        session_close(filesystem);
        return unshard_error_set(error, "mount", -result, "cannot start a FUSE session: %s",
                                 last_message);
    }
    fuse_set_log_func(log_libfuse);
    return 0;
}

/* The greeting once more. Whether the session now serves as it was agreed. */
static bool greet_again(struct filesystem *filesystem)
{
    _Alignas(struct fuse_in_header) char request[1024];
    size_t length = greeting_repeat(&filesystem->greeting, request, sizeof request);
    if (length == 0)
        return false;
    session_process(filesystem, request, length);
    return filesystem->greeting.unique == 0 && !filesystem->greeting.differs;
}

int session_adopt(struct filesystem *filesystem, const struct session_options *options, int device,
                  struct unshard_error *error)
{
    snprintf(last_message, sizeof last_message, "the FUSE library does not say why");
    fuse_set_log_func(keep_libfuse);
    filesystem->session = new_session(filesystem, options);
    if (!filesystem->session || use_journal(filesystem, device)) {
        if (filesystem->session)
            session_close(filesystem);
        return unshard_error_set(error, "takeover", EINVAL, "cannot start a FUSE session: %s",
                                 last_message);
    }
    fuse_set_log_func(log_libfuse);
    if (greet_again(filesystem))
        return 0;
    return unshard_error_set(error, "takeover", EPROTO,
                             "this version would not serve the mount as it was agreed with the "
                             "kernel; mount it anew");
}

void session_process(struct filesystem *filesystem, void *request, size_t length)
{
    struct fuse_buf buffer = {.size = length, .mem = request};
    fuse_session_process_buf(filesystem->session, &buffer);
}

void session_refuse(struct filesystem *filesystem, const void *request, int error)
{
    struct fuse_out_header out = {.len = sizeof out,
                                  .error = -error,
                                  .unique = ((const struct fuse_in_header *)request)->unique};
    struct iovec piece = {.iov_base = &out, .iov_len = sizeof out};
    if (journal_write(filesystem->journal, session_descriptor(filesystem), &piece, 1) < 0)
        errno = 0; /* nobody waits for it any more */
}

bool session_knows(void *filesystem, uint64_t nodeid)
{
    struct fuse_session *session = ((struct filesystem *)filesystem)->session;
    /* With a negative offset only attributes are dropped, no pages. */
    return fuse_lowlevel_notify_inval_inode(session, nodeid, -1, 0) != -ENOENT;
}

int session_descriptor(const struct filesystem *filesystem)
{
    return fuse_session_fd(filesystem->session);
}

int session_loop(struct filesystem *filesystem)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, LOOP_THREADS);
    fuse_loop_cfg_set_idle_threads(config, LOOP_THREADS);
    int result = fuse_session_loop_mt(filesystem->session, config);
    fuse_loop_cfg_destroy(config);
    return result;
}

void session_exit(struct filesystem *filesystem)
{
    fuse_session_exit(filesystem->session);
}

/* One that somebody else has mounted libfuse leaves open, and the connection with it. Threads that
 * still answer are not to meet another file under its number. */
static void let_go_of_device(int device)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    dup3(null, device, O_CLOEXEC);
    close(null);
}

void session_unmount(struct filesystem *filesystem)
{
    fuse_session_unmount(filesystem->session);
    int left = fuse_session_fd(filesystem->session);
    if (left >= 0)
        let_go_of_device(left);
}

void session_close(struct filesystem *filesystem)
{
    fuse_session_destroy(filesystem->session);
    filesystem->session = NULL;
}
