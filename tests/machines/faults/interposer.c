/* Counts the operations on files below $FAULT_FOLDER that change something: opens for writing, writes, fsyncs, renames,
 * unlinks, truncates, new folders. At operation number $FAULT_AT it does $FAULT_DEED: `kill`, `signal N`, `error N`
 * (once) or `errors N` (from then on). Each operation adds one character to the file $FAULT_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long count;
static __thread int inside;

static int concerns(int folder, const char *name)
{
    char place[PATH_MAX], link[64];
    const char *below = getenv("FAULT_FOLDER");
    ssize_t length;
    if (below == NULL || name == NULL)
        return 0;
    if (name[0] == '/')
        return strncmp(name, below, strlen(below)) == 0;
    if (folder == AT_FDCWD)
        length = getcwd(place, sizeof place) ? (ssize_t)strlen(place) : -1;
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        length = readlink(link, place, sizeof place - 1);
    }
    return length > 0 && strncmp(place, below, strlen(below)) == 0;
}

static int is_below(int file)
{
    char place[PATH_MAX] = "", link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, place, sizeof place - 1);
    const char *below = getenv("FAULT_FOLDER");
    return below != NULL && length > 0 && strncmp(place, below, strlen(below)) == 0;
}

/* 0 to go on, else the error that the operation answers. */
static int fault(char letter)
{
    const char *at = getenv("FAULT_AT"), *deed = getenv("FAULT_DEED"), *log = getenv("FAULT_LOG");
    if (inside)
        return 0;
    inside = 1;
    long number = ++count, target = at ? atol(at) : 0;
    if (log != NULL) {
        int file = (int)((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(log, O_WRONLY | O_APPEND | O_CREAT, 0666);
        if (file >= 0) {
            ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(file, &letter, 1);
            close(file);
        }
    }
    inside = 0;
    if (deed == NULL || target == 0 || number < target)
        return 0;
    if (strncmp(deed, "errors ", 7) == 0)
        return atoi(deed + 7);
    if (number > target)
        return 0;
    if (strcmp(deed, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strncmp(deed, "signal ", 7) == 0)
        kill(getpid(), atoi(deed + 7));
    return strncmp(deed, "error ", 6) == 0 ? atoi(deed + 6) : 0;
}

#define REAL(result, name, ...) ((result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))
#define FAIL(letter) do { int error = fault(letter); if (error) { errno = error; return -1; } } while (0)
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); \
    mode = va_arg(more, mode_t); va_end(more); }

#define OPEN(name) int name(const char *path, int flags, ...) { MODE(flags) \
    if (CHANGES(flags) && concerns(AT_FDCWD, path)) FAIL('o'); \
    return REAL(int, #name, const char *, int, ...)(path, flags, mode); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { MODE(flags) \
    if (CHANGES(flags) && concerns(folder, path)) FAIL('o'); \
    return REAL(int, #name, int, const char *, int, ...)(folder, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size)
{
    if (is_below(file)) FAIL('w');
    return REAL(ssize_t, "write", int, const void *, size_t)(file, data, size);
}
#define PWRITE(name, type) ssize_t name(int file, const void *data, size_t size, type offset) { \
    if (is_below(file)) FAIL('w'); \
    return REAL(ssize_t, #name, int, const void *, size_t, type)(file, data, size, offset); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
int fsync(int file)
{
    if (is_below(file)) FAIL('s');
    return REAL(int, "fsync", int)(file);
}
#define TRUNCATE(name, type) int name(int file, type size) { if (is_below(file)) FAIL('t'); \
    return REAL(int, #name, int, type)(file, size); }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
int rename(const char *from, const char *to)
{
    if (concerns(AT_FDCWD, to)) FAIL('r');
    return REAL(int, "rename", const char *, const char *)(from, to);
}
int renameat(int in, const char *from, int out, const char *to)
{
    if (concerns(out, to)) FAIL('r');
    return REAL(int, "renameat", int, const char *, int, const char *)(in, from, out, to);
}
int unlink(const char *path)
{
    if (concerns(AT_FDCWD, path)) FAIL('u');
    return REAL(int, "unlink", const char *)(path);
}
int unlinkat(int folder, const char *path, int flags)
{
    if (concerns(folder, path)) FAIL('u');
    return REAL(int, "unlinkat", int, const char *, int)(folder, path, flags);
}
int rmdir(const char *path)
{
    if (concerns(AT_FDCWD, path)) FAIL('u');
    return REAL(int, "rmdir", const char *)(path);
}
int mkdir(const char *path, mode_t mode)
{
    if (concerns(AT_FDCWD, path)) FAIL('m');
    return REAL(int, "mkdir", const char *, mode_t)(path, mode);
}
