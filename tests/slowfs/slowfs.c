/* SPDX-License-Identifier: MIT
 *
 * A read-only pass-through filesystem that behaves like slow or failing storage.
 *
 * usage: slowfs [-f] [-o latency=MS,rate=BYTES,total=BYTES,...] DIRECTORY MOUNTPOINT
 *
 * .slowfs/control takes the commands of rules.h, .slowfs/stats tells how often and how much each
 * file was read. Neither is listed, so that what scans the directory does not see them. Nothing is
 * kept in the page cache from one open to the next: each open starts cold, but with -o keep=1,
 * which is for files that do not change. With -o direct=1 nothing goes through the page cache at
 * all: what a read returns is what its reader gets, which `short` needs (the page cache takes a
 * short answer for the end of the file).
 */
#define FUSE_USE_VERSION 312

#include "rules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_DIR "/.slowfs"
#define CONTROL "/.slowfs/control"
#define STATS "/.slowfs/stats"

enum { MAX_READ = 1 << 20, MAX_BACKGROUND = 512, WORKERS = 512, IDLE_WORKERS = 64 };

struct open_file {
    int fd; /* -1 for a file of .slowfs */
    _Atomic uint64_t stream_next_ns;
    char *text; /* of stats: the snapshot */
};

static int root_fd;
static bool direct, keep;

/* The path as *at() calls below root_fd want it. */
static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static struct open_file *opened(const struct fuse_file_info *info)
{
    return (struct open_file *)(uintptr_t)info->fh;
}

static void *slow_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    connection->max_write = MAX_READ;
    connection->max_read = MAX_READ;
    connection->max_background = MAX_BACKGROUND;
    connection->congestion_threshold = MAX_BACKGROUND;
    config->use_ino = 1;
    config->nullpath_ok = 0;
    config->entry_timeout = 0;
    config->attr_timeout = 0;
    config->negative_timeout = 0;
    return NULL;
}

static int slow_getattr(const char *path, struct stat *out, struct fuse_file_info *info)
{
    (void)info;
    if (!strcmp(path, CONTROL) || !strcmp(path, STATS)) {
        *out = (struct stat){.st_mode = S_IFREG | 0666, .st_nlink = 1};
        return 0;
    }
    if (!strcmp(path, CONTROL_DIR)) {
        *out = (struct stat){.st_mode = S_IFDIR | 0755, .st_nlink = 2};
        return 0;
    }
    if (rules_vanished(below(path)))
        return -ENOENT;
    return fstatat(root_fd, below(path), out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int slow_readlink(const char *path, char *buffer, size_t size)
{
    ssize_t length = readlinkat(root_fd, below(path), buffer, size - 1);

    if (length < 0)
        return -errno;
    buffer[length] = '\0';
    return 0;
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    int fd = openat(root_fd, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory;
    const struct dirent *entry;

    (void)offset, (void)info, (void)flags;
    if (fd < 0)
        return -errno;
    directory = fdopendir(fd);
    if (!directory) {
        close(fd);
        return -ENOMEM;
    }
    while ((entry = readdir(directory))) { // NOLINT(concurrency-mt-unsafe): our own stream
        struct stat attributes = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};

        fill(buffer, entry->d_name, &attributes, 0, 0);
    }
    closedir(directory);
    return 0;
}

static int open_special(const char *path, struct open_file *file, struct fuse_file_info *info)
{
    info->direct_io = 1;
    if (!strcmp(path, STATS)) {
        file->text = rules_stats();
        return file->text ? 0 : -ENOMEM;
    }
    return 0;
}

static int open_plain(const char *path, struct open_file *file, struct fuse_file_info *info)
{
    if ((info->flags & O_ACCMODE) != O_RDONLY)
        return -EROFS;
    if (rules_vanished(below(path)))
        return -ENOENT;
    info->direct_io = direct;
    info->keep_cache = keep;
    file->fd = openat(root_fd, below(path), O_RDONLY | O_CLOEXEC);
    return file->fd < 0 ? -errno : 0;
}

static int slow_open(const char *path, struct fuse_file_info *info)
{
    struct open_file *file = calloc(1, sizeof(*file));
    int result;

    if (!file)
        return -ENOMEM;
    file->fd = -1;
    if (!strncmp(path, CONTROL_DIR "/", strlen(CONTROL_DIR) + 1))
        result = open_special(path, file, info);
    else
        result = open_plain(path, file, info);
    if (result)
        free(file);
    else
        info->fh = (uintptr_t)file;
    return result;
}

static int slow_release(const char *path, struct fuse_file_info *info)
{
    struct open_file *file = opened(info);

    (void)path;
    if (file->fd >= 0)
        close(file->fd);
    free(file->text);
    free(file);
    return 0;
}

static int read_text(const char *text, char *buffer, size_t size, off_t offset)
{
    size_t length = text ? strlen(text) : 0, start = (size_t)offset;

    if (start >= length)
        return 0;
    if (size > length - start)
        size = length - start;
    memcpy(buffer, text + start, size);
    return (int)size;
}

static void sleep_ns(uint64_t ns)
{
    struct timespec left = {.tv_sec = (time_t)(ns / 1000000000U),
                            .tv_nsec = (long)(ns % 1000000000U)};

    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

static ssize_t read_fully(int fd, char *buffer, size_t size, off_t offset)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(fd, buffer + done, size - done, offset + (off_t)done);

        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static int slow_read(const char *path, char *buffer, size_t size, off_t offset,
                     struct fuse_file_info *info)
{
    struct open_file *file = opened(info);
    struct rules_verdict verdict;
    ssize_t got;

    if (file->fd < 0)
        return read_text(file->text, buffer, size, offset);
    path = below(path);
    verdict = rules_begin_read(path, (uint64_t)offset, size, &file->stream_next_ns);
    if (verdict.wait_ns)
        sleep_ns(verdict.wait_ns);
    got = verdict.error ? -verdict.error : read_fully(file->fd, buffer, size, offset);
    if (got > 1 && verdict.cut_short)
        got /= 2;
    if (got > 0)
        rules_corrupt(path, (uint64_t)offset, buffer, (size_t)got);
    rules_end_read(path, got > 0 ? (size_t)got : 0);
    return (int)got;
}

static int slow_write(const char *path, const char *data, size_t size, off_t offset,
                      struct fuse_file_info *info)
{
    char *text;
    int result;

    (void)offset, (void)info;
    if (strcmp(path, CONTROL))
        return -EROFS;
    text = strndup(data, size);
    if (!text)
        return -ENOMEM;
    result = rules_command(text);
    free(text);
    return result ? result : (int)size;
}

/* So that shells can redirect into the control file. */
static int slow_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
    (void)size, (void)info;
    return strcmp(path, CONTROL) ? -EROFS : 0;
}

static int slow_statfs(const char *path, struct statvfs *out)
{
    (void)path;
    return fstatvfs(root_fd, out) ? -errno : 0;
}

static const struct fuse_operations operations = {.init = slow_init,
                                                  .getattr = slow_getattr,
                                                  .readlink = slow_readlink,
                                                  .readdir = slow_readdir,
                                                  .open = slow_open,
                                                  .release = slow_release,
                                                  .read = slow_read,
                                                  .write = slow_write,
                                                  .truncate = slow_truncate,
                                                  .statfs = slow_statfs};

struct settings {
    char *latency, *rate, *total;
    int direct, keep;
    const char *directory;
};

static const struct fuse_opt option_table[] = {
    {"latency=%s", offsetof(struct settings, latency), 0},
    {"rate=%s", offsetof(struct settings, rate), 0},
    {"total=%s", offsetof(struct settings, total), 0},
    {"direct=%d", offsetof(struct settings, direct), 0},
    {"keep=%d", offsetof(struct settings, keep), 0},
    FUSE_OPT_END};

/* The first argument that is no option is the directory, the second the mount point. */
static int keep_argument(void *data, const char *argument, int key, struct fuse_args *out)
{
    struct settings *settings = data;

    (void)out;
    if (key != FUSE_OPT_KEY_NONOPT || settings->directory)
        return 1;
    settings->directory = argument;
    return 0;
}

static int apply(const char *word, const char *value)
{
    char command[128];

    if (!value)
        return 0;
    snprintf(command, sizeof(command), "%s %s", word, value);
    return rules_command(command);
}

static int serve(struct fuse *fuse, const struct fuse_cmdline_opts *options)
{
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    int result;

    if (!loop || fuse_mount(fuse, options->mountpoint))
        return 1;
    fuse_set_signal_handlers(fuse_get_session(fuse));
    fuse_loop_cfg_set_max_threads(loop, WORKERS);
    fuse_loop_cfg_set_idle_threads(loop, IDLE_WORKERS);
    result = fuse_daemonize(options->foreground) ? 1 : fuse_loop_mt(fuse, loop);
    fuse_remove_signal_handlers(fuse_get_session(fuse));
    fuse_unmount(fuse);
    fuse_loop_cfg_destroy(loop);
    return result < 0;
}

int main(int argc, char **argv)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(argc, argv);
    struct fuse_cmdline_opts options;
    struct settings settings = {0};
    struct fuse *fuse;
    int result;

    if (fuse_opt_parse(&arguments, &settings, option_table, keep_argument) ||
        fuse_parse_cmdline(&arguments, &options) || !settings.directory || !options.mountpoint) {
        fprintf(stderr, "usage: slowfs [-f] [-o latency=MS,...] DIRECTORY MOUNTPOINT\n");
        return 2;
    }
    direct = settings.direct != 0;
    keep = settings.keep != 0;
    root_fd = open(settings.directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0 || apply("latency", settings.latency) || apply("rate", settings.rate) ||
        apply("total", settings.total)) {
        fprintf(stderr, "slowfs: bad directory or option: %s\n", settings.directory);
        return 2;
    }
    /* In front: whoever mounts may say otherwise. */
    fuse_opt_insert_arg(&arguments, 1, "-omax_read=1048576,fsname=slowfs,subtype=slowfs");
    fuse = fuse_new(&arguments, &operations, sizeof(operations), NULL);
    if (!fuse)
        return 1;
    result = serve(fuse, &options);
    fuse_destroy(fuse);
    free(options.mountpoint);
    fuse_opt_free_args(&arguments);
    return result;
}
