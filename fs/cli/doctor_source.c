/* SPDX-License-Identifier: MIT */
#include "fs/cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/cli/bounded_read.h"
#include "fs/cli/status_client.h"
#include "fs/host/mount_table.h"
#include "unshard.h"

#define ANSWER_MS 5000
/* What the kernel reads at once for a reader of a mount by default. */
#define READ_AHEAD_KIB 128

/* ---- a directory to be mounted -----------------------------------------------------------------
 */

struct type_search {
    unsigned major_number, minor_number;
    char type[64];
};

static int compare_device(void *context, const struct mounted *mounted)
{
    struct type_search *search = context;
    if (mounted->major_number == search->major_number &&
        mounted->minor_number == search->minor_number)
        snprintf(search->type, sizeof search->type, "%s", mounted->type);
    return 0;
}

/* Whether reads go past the page cache. A file system that does not say is tried. */
static bool reads_directly(const char *source, const char *file)
{
    char path[4400];
    if (snprintf(path, sizeof path, "%s/%s", source, file) >= (int)sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return false;
    void *page = aligned_alloc(4096, 4096);
    bool direct = page && pread(fd, page, 4096, 0) >= 0;
    free(page);
    close(fd);
    return direct;
}

static void check_file_system(struct doctor *doctor, const struct unshard_checkpoint *checkpoint)
{
    const char *source = unshard_checkpoint_source(checkpoint);
    struct stat status;
    if (stat(source, &status) != 0 || unshard_component_count(checkpoint) == 0 ||
        unshard_component(checkpoint, 0).shard_count == 0)
        return;
    struct type_search search = {major(status.st_dev), minor(status.st_dev), "unknown"};
    mount_table_each(compare_device, &search);
    if (reads_directly(source, unshard_component_shard(checkpoint, 0, 0).path))
        doctor_add(doctor, "source-reads", FINDING_GOOD, NULL, "on %.64s, read past its page cache",
                   search.type);
    else
        doctor_add(doctor, "source-reads", FINDING_NOTE,
                   "mount its storage so that files can be opened with O_DIRECT, where it can be",
                   "on %.64s, which is read through its own page cache: what is read is in memory "
                   "twice for a moment",
                   search.type);
}

static uint64_t bytes_of(const struct unshard_checkpoint *checkpoint)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < unshard_component_count(checkpoint); i++)
        bytes += unshard_component(checkpoint, i).bytes;
    return bytes;
}

static void check_size(struct doctor *doctor, const struct unshard_checkpoint *checkpoint)
{
    char size[UNSHARD_HUMAN_CAPACITY], room[UNSHARD_HUMAN_CAPACITY];
    uint64_t bytes = bytes_of(checkpoint), available = unshard_available_memory();
    unshard_human_bytes(size, bytes);
    unshard_human_bytes(room, available);
    if (bytes > available)
        doctor_add(doctor, "source-size", FINDING_NOTE,
                   "more memory, or a higher limit of the control group, if it is to be loaded "
                   "again",
                   "%s, more than the %s that are left for page cache: each load reads it from "
                   "storage, once",
                   size, room);
    else
        doctor_add(doctor, "source-size", FINDING_GOOD, NULL, "%s, which page cache has room for",
                   size);
}

static void check_components(struct doctor *doctor, const struct unshard_checkpoint *checkpoint)
{
    char quoted[FINDING_CAPACITY];
    unsigned failed = 0, count = unshard_component_count(checkpoint);
    for (uint32_t i = 0; i < count; i++) {
        const struct unshard_error *error = unshard_component(checkpoint, i).error;
        if (error && failed++ == 0)
            unshard_quote(quoted, sizeof quoted, error->message, strlen(error->message));
    }
    if (failed > 0)
        doctor_add(doctor, "source-components", FINDING_PROBLEM, "'unshard ls SOURCE' lists all",
                   "%u of %u components cannot be loaded: %s", failed, count, quoted);
    else if (count == 0)
        doctor_add(doctor, "source-components", FINDING_NOTE,
                   "name the directory that holds the weights, or one above it",
                   "no weights were found: all is shown as it is");
    else
        doctor_add(doctor, "source-components", FINDING_GOOD, NULL, "%u found", count);
}

void doctor_check_source(struct doctor *doctor, const char *path)
{
    struct unshard_view_options options = {0};
    struct unshard_checkpoint *checkpoint;
    struct unshard_error error = {0};
    if (unshard_checkpoint_open(path, &options, &checkpoint, &error) < 0) {
        char quoted[FINDING_CAPACITY];
        doctor_add(doctor, "source", FINDING_PROBLEM, "name a directory that this user can read",
                   "%s",
                   unshard_quote(quoted, sizeof quoted, error.message, strlen(error.message)));
        return;
    }
    check_components(doctor, checkpoint);
    check_size(doctor, checkpoint);
    check_file_system(doctor, checkpoint);
    unshard_checkpoint_close(checkpoint);
}

/* ---- a mount -----------------------------------------------------------------------------------
 */

struct minor_search {
    const char *path;
    unsigned minor_number;
};

static int compare_path(void *context, const struct mounted *mounted)
{
    struct minor_search *search = context;
    if (!strcmp(mounted->mountpoint, search->path))
        search->minor_number = mounted->minor_number;
    return 0;
}

static void check_read_ahead(struct doctor *doctor, const char *mountpoint)
{
    struct minor_search search = {mountpoint, 0};
    char path[64], line[32] = "";
    mount_table_each(compare_path, &search);
    snprintf(path, sizeof path, "/sys/class/bdi/0:%u/read_ahead_kb", search.minor_number);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    unsigned long kib = fgets(line, sizeof line, file) ? strtoul(line, NULL, 10) : 0;
    fclose(file);
    if (kib < READ_AHEAD_KIB)
        doctor_add(doctor, "read-ahead", FINDING_NOTE, "as root: echo 128 > that file",
                   "%s is %lu: a reader that is ahead of the prefetcher asks for little at a time",
                   path, kib);
    else
        doctor_add(doctor, "read-ahead", FINDING_GOOD, NULL, "%lu KiB", kib);
}

void doctor_check_mount(struct doctor *doctor, const char *path)
{
    char message[1200], quoted[FINDING_CAPACITY];
    int number;
    char *json = bounded_read_status(path, ANSWER_MS, message, sizeof message, &number);
    if (!json) {
        doctor_add(doctor, "mount", FINDING_PROBLEM,
                   "'unshard umount --force' ends it; then mount again", "%s",
                   unshard_quote(quoted, sizeof quoted, message, strlen(message)));
        return;
    }
    struct unshard_status *status = unshard_status_parse(json);
    const char *state = unshard_mount_state_name(status ? status->state : UNSHARD_MOUNT_UNKNOWN);
    if (status && status_client_unwell(status))
        doctor_add(doctor, "mount", FINDING_PROBLEM, "'unshard status MOUNTPOINT' tells each",
                   "%s, with %u errors", state, status->errors);
    else
        doctor_add(doctor, "mount", FINDING_GOOD, NULL, "it answers: %s", state);
    check_read_ahead(doctor, path);
    unshard_status_free(status);
    free(json);
}
