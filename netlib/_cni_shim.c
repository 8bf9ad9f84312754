/* The CNI plugin as a program: hands a runtime's call to the daemon and prints its answer.
 *
 * Environment, configuration and network namespace go over a unix socket, see
 * netlib/frontends/daemon/messages.py. Where no daemon answers, the script beside it does all. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

/* Filled in by `net cni install`. */
static volatile char state_dir[512] = "@state-dir@";
static volatile char fallback[512] = "@fallback@";

/* For so long a daemon that lives has never let anybody wait for a word. */
#ifndef PATIENCE_SECONDS
#define PATIENCE_SECONDS 5
#endif

/* Nobody has the call. It was handed over, and who has it stands still. */
enum { NOBODY = -1, STUCK = -2 };

struct text {
    char *bytes;
    size_t size, room;
};

static void add(struct text *text, const char *bytes, size_t size)
{
    if (text->size + size + 1 > text->room) {
        text->room = 2 * (text->size + size + 1);
        text->bytes = realloc(text->bytes, text->room);
        if (text->bytes == NULL)
            _exit(1);
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = '\0';
}

static void print(struct text *text, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    add(text, line, size);
}

/* A JSON string (RFC 8259 section 7). */
static void quote(struct text *text, const char *bytes, size_t size)
{
    add(text, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = bytes[i];
        if (byte == '"' || byte == '\\')
            print(text, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            print(text, "\\u%04x", byte);
        else
            add(text, (const char *)&bytes[i], 1);
    }
    add(text, "\"", 1);
}

/* All there is to read; less than 0 where an error ended it. */
static ssize_t slurp(int from, struct text *text)
{
    char part[65536];
    ssize_t size;
    while ((size = read(from, part, sizeof part)) > 0 || (size < 0 && errno == EINTR))
        if (size > 0)
            add(text, part, size);
    return size;
}

/* A connection to the daemon, or NOBODY; no step of it waits for longer than this, see STUCK. */
static int dial(const char *folder, time_t seconds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = seconds};
    int place = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (place < 0 || daemon < 0)
        return NOBODY;
    setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    /* An address has 108 bytes (unix(7)); a folder's path may have more. */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/netlib.sock", place);
    int refused = connect(daemon, (struct sockaddr *)&address, sizeof address);
    close(place);
    return !refused ? daemon : errno == EAGAIN ? STUCK : NOBODY;
}

static int send_all(int daemon, const struct text *text, int netns)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    for (size_t sent = 0; sent < text->size;) {
        struct iovec part = {text->bytes + sent, text->size - sent};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (sent == 0 && netns >= 0) {
            message.msg_control = &control;
            message.msg_controllen = sizeof control.room;
            struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(sizeof netns);
            memcpy(CMSG_DATA(rights), &netns, sizeof netns);
        }
        ssize_t size = sendmsg(daemon, &message, MSG_NOSIGNAL);
        if (size < 0 && errno != EINTR)
            return -1;
        sent += size > 0 ? size : 0;
    }
    return 0;
}

/* The number after "name": in the answer's first line, or -1. */
static long number(const char *line, const char *name)
{
    const char *found = strstr(line, name);
    return found ? strtol(found + strlen(name), NULL, 10) : -1;
}

/* Whether a daemon takes connections and says nothing. One that ends says no more than that. */
static int is_stuck(const char *folder)
{
    static const char ping[] = "{\"version\":1,\"do\":\"ping\"}\n";
    char byte;
    int daemon = dial(folder, PATIENCE_SECONDS);
    if (daemon < 0)
        return daemon == STUCK;
    int is_silent = (send(daemon, ping, sizeof ping - 1, MSG_NOSIGNAL) < 0 ||
                     recv(daemon, &byte, 1, 0) < 0) && errno == EAGAIN;
    close(daemon);
    return is_silent;
}

/* The exit status, when all of an answer came and was printed; else NOBODY or STUCK.
 * `seconds`: how long to wait for it; 0: for as long as the daemon lives. */
static int ask(const char *folder, const char *path, const struct text *request, time_t seconds)
{
    struct text answer = {0};
    int daemon = dial(folder, seconds ? seconds : PATIENCE_SECONDS);
    if (daemon < 0)
        return daemon;
    if (send_all(daemon, request, open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)))
        return errno == EAGAIN ? STUCK : NOBODY;
    shutdown(daemon, SHUT_WR); /* one request: the answer ends with the connection */
    while (slurp(daemon, &answer) < 0 && errno == EAGAIN)
        if (seconds)
            return NOBODY;
        else if (is_stuck(folder))
            return STUCK;
    char *end = answer.bytes ? strchr(answer.bytes, '\n') : NULL;
    if (end == NULL)
        return NOBODY;
    *end++ = '\0';
    long status = number(answer.bytes, "\"status\":"), body = number(answer.bytes, "\"body\":");
    size_t size = answer.size - (end - answer.bytes);
    if (status < 0 || (body > 0 && size != (size_t)body))
        return NOBODY;
    for (size_t written = 0; written < size;) {
        ssize_t part = write(STDOUT_FILENO, end + written, size - written);
        if (part < 0 && errno != EINTR)
            return 1;
        written += part > 0 ? part : 0;
    }
    return (int)status;
}

int main(void)
{
    struct text request = {0}, stdin_text = {0};
    uint8_t random[16];
    const char *command = getenv("CNI_COMMAND"), *folder = getenv("NETLIB_STATE_DIR");
    const char *netns = getenv("CNI_NETNS"), *between = "";
    if (command && *command && strcmp(command, "VERSION")) {
        slurp(STDIN_FILENO, &stdin_text);
        if (getrandom(random, sizeof random, 0) != sizeof random)
            return 1;
        print(&request, "{\"version\":1,\"do\":\"cni\",\"operation\":\"");
        char operation[33] = "";
        for (size_t i = 0; i < sizeof random; i++)
            sprintf(operation + 2 * i, "%02x", random[i]);
        print(&request, "%s\",\"environment\":{", operation);
        for (char **one = environ; *one; one++) {
            const char *equals = strchr(*one, '=');
            if (!equals || (strncmp(*one, "CNI_", 4) && strncmp(*one, "PATH=", 5)))
                continue;
            add(&request, between, strlen(between));
            between = ",";
            quote(&request, *one, equals - *one);
            add(&request, ":", 1);
            quote(&request, equals + 1, strlen(equals + 1));
        }
        print(&request, "},\"body\":%zu}\n", stdin_text.size);
        if (stdin_text.size)
            add(&request, stdin_text.bytes, stdin_text.size);
        /* STATUS asks whether the daemon is well: the script says so if it is not. */
        time_t seconds = strcmp(command, "STATUS") ? 0 : 1;
        folder = folder && *folder ? folder : (char *)state_dir;
        int status = ask(folder, netns ? netns : "", &request, seconds);
        if (status >= 0)
            return status;
        /* The script reads what was read here, and knows the call by the same name. */
        int again = memfd_create("stdin", 0);
        if (again < 0 || write(again, stdin_text.bytes, stdin_text.size) < 0)
            return 1;
        lseek(again, 0, SEEK_SET);
        dup2(again, STDIN_FILENO);
        setenv("NETLIB_OPERATION", operation, 1);
        if (status == STUCK) /* it may do it yet, so nobody else may */
            setenv("NETLIB_STUCK", "1", 1);
    }
    execl((char *)fallback, (char *)fallback, (char *)NULL);
    printf("{\"cniVersion\":\"1.0.0\",\"code\":5,\"msg\":\"%s can't be run: %s\","
           "\"details\":\"install it again: net cni install\"}\n", (char *)fallback, strerror(errno));
    return 1;
}
