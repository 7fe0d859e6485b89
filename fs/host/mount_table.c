/* SPDX-License-Identifier: MIT */
#include "fs/host/mount_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

char *mount_table_resolve(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *copy = strndup(path, length);
    if (!copy)
        return NULL;
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    char *result = NULL;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        result = realpath(copy, NULL);
    } else {
        const char *above = "."; /* the name stands alone */
        if (slash && slash != copy) {
            *slash = '\0';
            above = copy;
        } else if (slash) {
            above = "/";
        }
        char *parent = realpath(above, NULL);
        if (parent && asprintf(&result, "%s/%s", parent[1] ? parent : "", name) < 0)
            result = NULL;
        free(parent);
    }
    free(copy);
    return result;
}

/* Replaces the kernel's \ooo by the byte, in place. */
static void unescape(char *string)
{
    char *out = string;
    for (; *string; string++) {
        if (string[0] == '\\' && string[1] >= '0' && string[1] <= '3' && string[2] >= '0' &&
            string[2] <= '7' && string[3] >= '0' && string[3] <= '7') {
            *out++ = (char)((string[1] - '0') * 64 + (string[2] - '0') * 8 + (string[3] - '0'));
            string += 3;
        } else {
            *out++ = *string;
        }
    }
    *out = '\0';
}

static bool parse_device(const char *field, struct mounted *out)
{
    char *end;
    out->major_number = (unsigned)strtoul(field, &end, 10);
    if (end == field || *end != ':')
        return false;
    const char *minor_field = end + 1;
    out->minor_number = (unsigned)strtoul(minor_field, &end, 10);
    return end != minor_field && *end == '\0';
}

/* 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
 * id, parent, device, root, mount point, options, optional fields, "-", type, source, ... */
static bool parse_line(char *line, struct mounted *out)
{
    char *dash = strstr(line, " - "), *rest = NULL;
    if (!dash)
        return false;
    *dash = '\0';
    out->type = strtok_r(dash + 3, " \n", &rest);
    char *source = strtok_r(NULL, " \n", &rest);
    char *fields[5] = {strtok_r(line, " ", &rest)};
    for (int i = 1; i < 5; i++)
        fields[i] = fields[i - 1] ? strtok_r(NULL, " ", &rest) : NULL;
    if (!out->type || !source || !fields[4] || !parse_device(fields[2], out))
        return false;
    unescape(fields[4]);
    unescape(source);
    out->mountpoint = fields[4];
    out->source = source;
    return true;
}

int mount_table_each_of(FILE *stream, int (*each)(void *context, const struct mounted *mounted),
                        void *context)
{
    char *line = NULL;
    size_t capacity = 0;
    int result = 0;
    struct mounted mounted;
    while (result == 0 && getline(&line, &capacity, stream) >= 0)
        if (parse_line(line, &mounted))
            result = each(context, &mounted);
    if (result == 0 && ferror(stream))
        result = -EIO;
    free(line);
    return result;
}

int mount_table_each(int (*each)(void *context, const struct mounted *mounted), void *context)
{
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    if (!stream)
        return -errno;
    int result = mount_table_each_of(stream, each, context);
    fclose(stream);
    return result;
}

bool mount_table_is_unshard(const char *type)
{
    return strcmp(type, "fuse.unshard") == 0;
}
