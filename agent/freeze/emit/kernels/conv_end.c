#endif /* @name@ */

