/*
 * How the agent in a guest is talked to (guest/exec/agent.c), which runs commands and
 * copies files for the host (`bivisor do`, `bivisor cp`), which connects to a port of the
 * guest's socket device. Each connection is one command or one file, and a process of its
 * own.
 *
 * It carries pieces: a byte that says what it is, the length in four bytes, low ones
 * first, at most AGENT_PIECE, and so many bytes. The host begins:
 *
 *     k  strings, as command_take() wants them, each ended by a NUL; also path=, mode=
 *     C  go: the command.   P  go: a file is written.   G  go: a file is read
 *     i  input, e  its end; no more than AGENT_WINDOW is on its way
 *     s  a signal's number, w  the terminal's columns and rows: four bytes each
 *
 * and the guest answers
 *
 *     a  so many bytes of input have been taken: four bytes
 *     o, r  output, errors; what a file has in it
 *     f  the file's mode: four bytes
 *     m  what went wrong, a sentence
 *     x  the end: the status, four bytes
 */
#ifndef EXEC_AGENT_H
#define EXEC_AGENT_H

#define AGENT_PORT 9000
#define AGENT_PIECE 32768
#define AGENT_WINDOW 65536

#endif
