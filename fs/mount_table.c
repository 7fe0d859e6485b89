/* SPDX-License-Identifier: MIT */
#include "fs/mount_table.h"

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

/* Fields: id, parent, device, root, mount point, options, optional fields, "-", type, source, ...
 */
static bool parse_line(char *line, char **mountpoint, char **type, char **source)
{
    char *dash = strstr(line, " - ");
    if (!dash)
        return false;
    *dash = '\0';
    char *rest = NULL;
    *type = strtok_r(dash + 3, " \n", &rest);
    *source = strtok_r(NULL, " \n", &rest);
    char *field = strtok_r(line, " ", &rest);
    for (int i = 0; field && i < 4; i++)
        field = strtok_r(NULL, " ", &rest);
    *mountpoint = field;
    if (!field || !*type || !*source)
        return false;
    unescape(field);
    unescape(*source);
    return true;
}

int mount_table_type_from(FILE *stream, const char *path, char *type)
{
    char *line = NULL, *mountpoint, *found, *source;
    size_t capacity = 0;
    int result = -ENOENT;
    while (getline(&line, &capacity, stream) >= 0) {
        if (!parse_line(line, &mountpoint, &found, &source) || strcmp(mountpoint, path) != 0)
            continue;
        /* Later lines lie on top of earlier ones. */
        snprintf(type, MOUNT_TYPE_CAPACITY, "%s", found);
        result = 0;
    }
    if (ferror(stream))
        result = -EIO;
    free(line);
    return result;
}

int mount_table_type(const char *path, char *type)
{
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    if (!stream)
        return -errno;
    int result = mount_table_type_from(stream, path, type);
    fclose(stream);
    return result;
}

int mount_table_each(int (*each)(void *context, const char *mountpoint, const char *type,
                                 const char *source),
                     void *context)
{
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    if (!stream)
        return -errno;
    char *line = NULL, *mountpoint, *type, *source;
    size_t capacity = 0;
    int result = 0;
    while (result == 0 && getline(&line, &capacity, stream) >= 0)
        if (parse_line(line, &mountpoint, &type, &source))
            result = each(context, mountpoint, type, source);
    if (result == 0 && ferror(stream))
        result = -EIO;
    free(line);
    fclose(stream);
    return result;
}

bool mount_table_is_unshard(const char *type)
{
    return strcmp(type, "fuse.unshard") == 0;
}
